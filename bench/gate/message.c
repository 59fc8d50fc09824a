/*
 * message PORT SECONDS: sends one message after the other over one connection, each with 16 MiB
 * in lines of 78 octets. Prints the MB (10^6 octets) of content a second that the server has
 * accepted.
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { CHUNK = 78 * 1024, CHUNKS = 210 };

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec / 1e9;
}

static void fail(const char *what) {
  fprintf(stderr, "%s\n", what);
  exit(1);
}

static void send_all(int fd, const char *octets, long size) {
  while (size > 0) {
    long n = write(fd, octets, size);
    if (n <= 0) fail("write");
    octets += n;
    size -= n;
  }
}

static void command(int fd, const char *line, const char *code) {
  char reply[512];
  if (line) send_all(fd, line, strlen(line));
  long n = read(fd, reply, sizeof reply - 1);
  if (n <= 0 || strncmp(reply, code, 3) != 0) fail(line ? line : "banner");
}

int main(int argc, char **argv) {
  if (argc < 3) return 100;
  static char chunk[CHUNK];
  for (int i = 0; i < CHUNK; i++) chunk[i] = i % 78 == 76 ? '\r' : i % 78 == 77 ? '\n' : 'x';
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  if (connect(fd, (struct sockaddr *)&to, sizeof to) < 0) fail("connect");
  command(fd, NULL, "220");
  double sent = 0, begin = now(), end = begin + atof(argv[2]);
  while (now() < end) {
    command(fd, "MAIL FROM:<ann@example.org>\r\n", "250");
    command(fd, "RCPT TO:<bob@example.net>\r\n", "250");
    command(fd, "DATA\r\n", "354");
    for (int i = 0; i < CHUNKS; i++) send_all(fd, chunk, CHUNK);
    command(fd, ".\r\n", "250");
    sent += (double)CHUNK * CHUNKS;
  }
  printf("%.0f\n", sent / 1e6 / (now() - begin));
  return 0;
}
