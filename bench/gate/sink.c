/*
 * An SMTP server for one session. It accepts messages and discards them: 250 to each command,
 * 354 to DATA, 221 to QUIT.
 */
#include <string.h>
#include <unistd.h>

static char buffer[262144];
static long at, size;

static int octet(void) {
  if (at == size) {
    at = 0;
    size = read(0, buffer, sizeof buffer);
    if (size <= 0) _exit(0);
  }
  return (unsigned char)buffer[at++];
}

static void reply(const char *text) {
  if (write(1, text, strlen(text)) < 0) _exit(1);
}

/* Up to CRLF.CRLF; the line end of DATA counts. */
static void content(void) {
  static const char end[] = "\r\n.\r\n";
  int matched = 2;
  while (matched < 5) {
    if (matched == 0) {
      char *next = at < size ? memchr(buffer + at, '\r', size - at) : NULL;
      if (next == NULL) at = size;
      else at = next - buffer;
    }
    int c = octet();
    if (c == end[matched]) matched++;
    else matched = c == '\r';
  }
}

int main(void) {
  reply("220 sink\r\n");
  for (;;) {
    char line[512];
    int n = 0;
    for (int c = octet(); c != '\n'; c = octet()) if (n < 511) line[n++] = (char)c;
    line[n] = 0;
    if (strncmp(line, "DATA", 4) == 0) {
      reply("354 go ahead\r\n");
      content();
      reply("250 taken\r\n");
    } else if (strncmp(line, "QUIT", 4) == 0) {
      reply("221 bye\r\n");
      return 0;
    } else reply("250 ok\r\n");
  }
}
