/* The smallest SMTP server: a banner, and 221 to every line. */
#include <stdlib.h>
#include <unistd.h>

int main(void) {
  char line[512];
  const char *banner = getenv("RELAYCLIENT") ? "220 relay\r\n" : "220 local\r\n";
  if (write(1, banner, 11) != 11) return 1;
  if (read(0, line, sizeof line) <= 0) return 0;
  return write(1, "221 bye\r\n", 9) != 9;
}
