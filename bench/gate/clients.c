/*
 * clients PORT PROCESSES SECONDS WORD [tls]: PROCESSES clients, each with one connection after the
 * other. A client reads the banner, sends QUIT and reads to the end of the stream. Prints
 * connections a second, and median and 99th percentile of the time to the banner in microseconds.
 * Then prints the number of banners without WORD, and the seconds of CPU of the clients. With tls
 * each connection begins with a full handshake of TLS 1.3. The clients' address is 127.0.0.2.
 * Prints nothing, and exits with 1, if a client process failed.
 */
#include <arpa/inet.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MOST = 200000 };
struct shared { long done, wrong; unsigned waits[MOST]; };

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec / 1e9;
}

static SSL_CTX *context;

/* The TLS of a connection; NULL without it. */
static SSL *secure(int fd) {
  if (context == NULL) return NULL;
  SSL *ssl = SSL_new(context);
  SSL_set_fd(ssl, fd);
  if (SSL_connect(ssl) != 1) { fprintf(stderr, "the handshake failed\n"); _exit(1); }
  return ssl;
}

static long receive_octets(SSL *ssl, int fd, char *octets, int size) {
  return ssl ? SSL_read(ssl, octets, size) : read(fd, octets, size);
}

static long send_octets(SSL *ssl, int fd, const char *octets, int size) {
  return ssl ? SSL_write(ssl, octets, size) : write(fd, octets, size);
}

static int compare(const void *a, const void *b) {
  unsigned x = *(const unsigned *)a, y = *(const unsigned *)b;
  return x < y ? -1 : x > y;
}

int main(int argc, char **argv) {
  if (argc < 5) return 100;
  int processes = atoi(argv[2]);
  double seconds = atof(argv[3]);
  struct shared *s = mmap(NULL, sizeof *s, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  struct sockaddr_in from = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1)};
  if (argc > 5) {
    context = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION);
    SSL_CTX_set1_groups_list(context, "X25519");
    SSL_CTX_set_ciphersuites(context, "TLS_AES_128_GCM_SHA256");
  }
  double begin = now(), end = begin + seconds;
  for (int p = 0; p < processes; p++) {
    if (fork() > 0) continue;
    while (now() < end) {
      char banner[512] = "", rest[512];
      double start = now();
      int fd = socket(AF_INET, SOCK_STREAM, 0);
      int on = 1;
      setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
      if (bind(fd, (struct sockaddr *)&from, sizeof from) < 0) { perror("bind"); _exit(1); }
      if (connect(fd, (struct sockaddr *)&to, sizeof to) < 0) { close(fd); __sync_add_and_fetch(&s->wrong, 1); usleep(1000); continue; }
      SSL *ssl = secure(fd);
      long got = receive_octets(ssl, fd, banner, sizeof banner - 1);
      unsigned wait = (unsigned)((now() - start) * 1e6);
      if (got <= 0 || !strstr(banner, argv[4])) __sync_add_and_fetch(&s->wrong, 1);
      if (send_octets(ssl, fd, "QUIT\r\n", 6) == 6) while (receive_octets(ssl, fd, rest, sizeof rest) > 0) {}
      SSL_free(ssl);
      close(fd);
      long n = __sync_fetch_and_add(&s->done, 1);
      if (n < MOST) s->waits[n] = wait;
    }
    _exit(0);
  }
  int failed = 0;
  for (int status; wait(&status) > 0;) failed |= status != 0;
  /* The others may have finished, but their figures are not those of all processes. */
  if (failed) return 1;
  struct rusage usage;
  getrusage(RUSAGE_CHILDREN, &usage);
  double own = usage.ru_utime.tv_sec + usage.ru_stime.tv_sec + (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
  long n = s->done < MOST ? s->done : MOST;
  qsort(s->waits, n, sizeof s->waits[0], compare);
  printf("{\"perSecond\": %.0f, \"p50\": %u, \"p99\": %u, \"wrong\": %ld, \"own\": %.3f}\n", s->done / (now() - begin), n ? s->waits[n / 2] : 0,
         n ? s->waits[n * 99 / 100] : 0, s->wrong, own);
  return 0;
}
