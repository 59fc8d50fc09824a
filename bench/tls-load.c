/*
 * Load for bench/tls.ts: the clients of a TLS front and the server behind it. Both use so little
 * CPU that the front is the bottleneck.
 *
 *   tls-load server
 *       Greets. Sends n octets on "BULK n" and ends. Ends when the client ends. Prints its port.
 *   tls-load KIND PORT COUNT CLIENTS
 *       KIND: full, resumed, bulk (COUNT octets to each client), idle (COUNT connections).
 *
 * A load prints "ready" after one visit and begins at the first line on its standard input. It
 * prints its result in one line: seconds, octets received, resumed visits, tickets received, and
 * its seconds of CPU.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

static const char GREETING[] = "+OK ready\r\n";

static void fail(const char *what) {
  fprintf(stderr, "tls-load: %s: %s\n", what, strerror(errno));
  ERR_print_errors_fp(stderr);
  exit(1);
}

static void many_descriptors(void) {
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) < 0) fail("getrlimit");
  limit.rlim_cur = limit.rlim_max;
  if (setrlimit(RLIMIT_NOFILE, &limit) < 0) fail("setrlimit");
}

/* ---- the server behind ---- */

struct peer {
  int fd;
  long long left;
};

static char chunk[262144];

/* Returns 0 if the connection has ended. */
static int send_left(struct peer *peer) {
  while (peer->left > 0) {
    size_t size = peer->left < (long long)sizeof chunk ? (size_t)peer->left : sizeof chunk;
    ssize_t sent = send(peer->fd, chunk, size, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0) return errno == EAGAIN;
    peer->left -= sent;
  }
  return 0;
}

static int receive_line(struct peer *peer) {
  char line[64];
  ssize_t size = recv(peer->fd, line, sizeof line - 1, MSG_DONTWAIT);
  if (size < 0) return errno == EAGAIN;
  if (size == 0) return 0;
  line[size] = 0;
  if (sscanf(line, "BULK %lld", &peer->left) != 1) return 1;
  return send_left(peer);
}

static void serve(void) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
  socklen_t size = sizeof address;
  int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1;
  if (bind(listener, (struct sockaddr *)&address, size) < 0 || listen(listener, 4096) < 0) fail("listen");
  getsockname(listener, (struct sockaddr *)&address, &size);
  printf("%d\n", ntohs(address.sin_port));
  fflush(stdout);
  int poll = epoll_create1(0);
  struct peer self = {.fd = listener};
  struct epoll_event event = {.events = EPOLLIN, .data.ptr = &self}, events[64];
  epoll_ctl(poll, EPOLL_CTL_ADD, listener, &event);
  for (;;) {
    int count = epoll_wait(poll, events, 64, -1);
    for (int i = 0; i < count; i++) {
      struct peer *peer = events[i].data.ptr;
      if (peer == &self) {
        for (int fd; (fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0;) {
          setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
          struct peer *made = calloc(1, sizeof *made);
          made->fd = fd;
          event = (struct epoll_event){.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = made};
          if (send(fd, GREETING, sizeof GREETING - 1, MSG_NOSIGNAL) < 0) fail("greeting");
          epoll_ctl(poll, EPOLL_CTL_ADD, fd, &event);
        }
      } else if (!(peer->left > 0 ? send_left(peer) : receive_line(peer))) {
        close(peer->fd);
        free(peer);
      }
    }
  }
}

/* ---- the clients ---- */

static SSL_CTX *context;
static struct sockaddr_in front = {.sin_family = AF_INET};
static int is_resuming;
static long long octets_requested;
static atomic_llong visits_left, octets_received, resumed, tickets;

static __thread SSL_SESSION *ticket;
static SSL_SESSION *first_ticket;

static int keep_ticket(SSL *ssl, SSL_SESSION *session) {
  (void)ssl;
  tickets++;
  if (ticket != NULL) SSL_SESSION_free(ticket);
  ticket = session;
  return 1;
}

static SSL *open_front(void) {
  int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
  if (connect(fd, (struct sockaddr *)&front, sizeof front) < 0) fail("connect");
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  SSL *ssl = SSL_new(context);
  SSL_set_fd(ssl, fd);
  if (is_resuming && ticket != NULL) {
    /* Resume with a copy, because OpenSSL's client cannot use a session object twice, and the
     * server need not send a new ticket each time. */
    SSL_SESSION *copy = SSL_SESSION_dup(ticket);
    SSL_set_session(ssl, copy);
    SSL_SESSION_free(copy);
  }
  if (SSL_connect(ssl) != 1) fail("handshake");
  char greeting[512];
  if (SSL_read(ssl, greeting, sizeof greeting) <= 0) fail("no greeting");
  resumed += SSL_session_reused(ssl);
  return ssl;
}

static void visit(long long octets) {
  static __thread char buffer[65536];
  SSL *ssl = open_front();
  long long received = 0;
  if (octets > 0) {
    char line[64];
    int length = snprintf(line, sizeof line, "BULK %lld\n", octets);
    if (SSL_write(ssl, line, length) != length) fail("write");
    for (int size; received < octets && (size = SSL_read(ssl, buffer, sizeof buffer)) > 0;) received += size;
    if (received != octets) fail("download cut short");
  }
  octets_received += received;
  SSL_shutdown(ssl);
  /* The front has finished when it closes too. */
  while (SSL_read(ssl, buffer, sizeof buffer) > 0) {}
  ERR_clear_error();
  close(SSL_get_fd(ssl));
  SSL_free(ssl);
}

static void *visitor(void *unused) {
  if (first_ticket != NULL) ticket = SSL_SESSION_dup(first_ticket);
  while (atomic_fetch_sub(&visits_left, 1) > 0) visit(octets_requested);
  return unused;
}

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec + time.tv_nsec / 1e9;
}

static double own_cpu(void) {
  struct rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_utime.tv_sec + usage.ru_stime.tv_sec + (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static void wait_for_line(void) {
  for (char octet; read(0, &octet, 1) == 1 && octet != '\n';) {}
}

int main(int count, char **words) {
  many_descriptors();
  if (count == 2 && strcmp(words[1], "server") == 0) serve();
  if (count != 5) {
    fprintf(stderr, "usage: tls-load server | tls-load full|resumed|bulk|idle PORT COUNT CLIENTS\n");
    return 100;
  }
  const char *kind = words[1];
  long long amount = atoll(words[3]);
  int clients = atoi(words[4]);
  front.sin_port = htons((uint16_t)atoi(words[2]));
  front.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  context = SSL_CTX_new(TLS_client_method());
  /* The same parameters for every front, instead of its default. */
  SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION);
  SSL_CTX_set1_groups_list(context, "X25519");
  SSL_CTX_set_ciphersuites(context, "TLS_AES_128_GCM_SHA256");
  SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
  SSL_CTX_sess_set_new_cb(context, keep_ticket);
  visit(0);
  first_ticket = ticket;
  printf("ready\n");
  fflush(stdout);
  wait_for_line();
  resumed = tickets = 0;
  double start = now(), cpu = own_cpu();
  if (strcmp(kind, "idle") == 0) {
    for (long long i = 0; i < amount; i++) open_front();
    printf("open\n");
    fflush(stdout);
    wait_for_line();
    return 0;
  }
  is_resuming = strcmp(kind, "resumed") == 0;
  if (strcmp(kind, "bulk") == 0) {
    octets_requested = amount;
    visits_left = clients;
  } else
    visits_left = amount;
  pthread_t threads[256];
  if (clients > 256) clients = 256;
  for (int i = 0; i < clients; i++) pthread_create(&threads[i], NULL, visitor, NULL);
  for (int i = 0; i < clients; i++) pthread_join(threads[i], NULL);
  printf("%.6f %lld %lld %lld %.6f\n", now() - start, octets_received, resumed, tickets, own_cpu() - cpu);
  return 0;
}
