/*
 * Load generator for POP3 servers:
 *
 *   clients PORT CLIENTS SESSIONS FIRST-USER [TLS [ADDRESSES [hold]]] < SCRIPT
 *
 * CLIENTS is the number of clients at a time, and SESSIONS the number of sessions in all. A client
 * sends each command when the answer to the previous one is complete. SCRIPT has one command a
 * line:
 *
 *   OCTETS LINES EXPECTED COMMAND
 *
 * OCTETS and LINES are those of the multi-line response behind its first line, with the
 * termination. 0: any number. Both -: a reply of one line. The first line of the answer must begin
 * with EXPECTED, where `_` stands for a space. `%d` in COMMAND is the number of the client. A
 * client waits for the greeting first, and for the end of the stream after the last command.
 *
 * TLS: clear (no TLS), full (each session makes a full handshake), resumed (each session offers the
 * newest ticket of its client). Every server gets TLS 1.3 with X25519 and AES-128, so that all do
 * the same work. ADDRESSES: the number of addresses of 127.0.0.0/8 that the sessions use in
 * rotation; 0: 127.0.0.1 only. hold: the sessions stay open after the last command. The program
 * then prints `open` when all are open, and waits for a signal.
 *
 * Prints sessions a second, and seconds from connect to the end (median, 95th and 99th percentile,
 * longest). Then prints seconds from connect to the answer to PASS (median, 99th percentile),
 * octets received, resumed sessions, and the processor time of this program. An unexpected answer
 * ends the run with status 1.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MOST_COMMANDS = 64, MOST_CLIENTS = 4096, BUFFER = 1 << 18 };
enum tls { CLEAR, FULL, RESUMED };

struct command {
  int isMultiline;
  long octets, lines;
  char expected[64], text[160];
};

/* A client waits for the answer to command `at`; -1: for the greeting; `commands`: for the end. */
struct client {
  int fd, number, at, inBody, headLength, tailLength;
  long octets, lines, sessions;
  double began;
  SSL *ssl;
  SSL_SESSION *ticket;
  char head[512], tail[5];
};

static struct command script[MOST_COMMANDS];
static struct client clients[MOST_CLIENTS];
static char buffer[BUFFER];
static int commands, poller, count;
static long toBegin, done, received, resumed, loggedIn;
static double *took, *tookToLogin;
static enum tls tls;
static long addresses;
static int holds;
static SSL_CTX *context;
static struct sockaddr_in server;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec / 1e9;
}

static void fail(const struct client *c, const char *what) {
  const char *command = c->at < 0 ? "the greeting" : c->at < commands ? script[c->at].text : "the end";
  fprintf(stderr, "client %d, %s: %s; octets=%ld lines=%ld head=%.*s\n", c->number, command, what, c->octets, c->lines,
          c->headLength, c->head);
  exit(1);
}

/* Called by OpenSSL for each ticket of the server. */
static int keepTicket(SSL *ssl, SSL_SESSION *session) {
  struct client *c = SSL_get_app_data(ssl);
  if (tls != RESUMED) return 0;
  SSL_SESSION_free(c->ticket);
  c->ticket = session;
  return 1;
}

static void makeContext(void) {
  context = SSL_CTX_new(TLS_client_method());
  SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION);
  SSL_CTX_set1_groups_list(context, "X25519");
  SSL_CTX_set_ciphersuites(context, "TLS_AES_128_GCM_SHA256");
  SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
  SSL_CTX_sess_set_new_cb(context, keepTicket);
}

/*
 * Binds to the next address of this client: 127.1.0.1, 127.1.0.2, … A device logs in from an
 * address that no other login uses. Each client therefore has a separate set of addresses, as long
 * as there are enough of them.
 */
static void bindToNext(const struct client *c) {
  int on = 1;
  long own = addresses / count, n = own > 0 ? c->number % count + count * (c->sessions % own) : c->number % addresses;
  uint32_t host = 0x7f010001 + (uint32_t)(n / 254 << 8 | n % 254);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(host)};
  setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
  if (bind(c->fd, (struct sockaddr *)&address, sizeof address) < 0) {
    perror("bind");
    exit(1);
  }
}

static void begin(struct client *c) {
  int on = 1;
  const struct client before = *c;
  *c = (struct client){.number = before.number, .sessions = before.sessions + 1, .ticket = before.ticket};
  c->at = -1;
  c->began = now();
  c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  if (addresses > 0) bindToNext(c);
  if (tls != CLEAR) {
    c->ssl = SSL_new(context);
    SSL_set_app_data(c->ssl, c);
    SSL_set_fd(c->ssl, c->fd);
    SSL_set_connect_state(c->ssl);
    if (c->ticket != NULL) {
      /* Resume with a copy, because OpenSSL's client cannot use a session object twice, and the
       * server need not send a new ticket each time. */
      SSL_SESSION *copy = SSL_SESSION_dup(c->ticket);
      SSL_set_session(c->ssl, copy);
      SSL_SESSION_free(copy);
    }
  }
  if (connect(c->fd, (struct sockaddr *)&server, sizeof server) < 0 && errno != EINPROGRESS) fail(c, "cannot connect");
  /* A TLS client sends first, as soon as it is connected. */
  struct epoll_event event = {.events = tls == CLEAR ? EPOLLIN : EPOLLIN | EPOLLOUT, .data.ptr = c};
  if (epoll_ctl(poller, EPOLL_CTL_ADD, c->fd, &event) < 0) fail(c, "epoll_ctl");
}

/* Sends the next command, or waits for the end of the stream. */
static void next(struct client *c) {
  char line[256];
  if (c->at >= 0 && strncmp(script[c->at].text, "PASS ", 5) == 0) tookToLogin[loggedIn++] = now() - c->began;
  c->at++;
  c->inBody = c->headLength = c->tailLength = 0;
  c->octets = c->lines = 0;
  if (c->at == commands) {
    if (holds && ++done == toBegin) {
      puts("open");
      fflush(stdout);
      for (;;) pause();
    }
    return;
  }
  int length = snprintf(line, sizeof line, script[c->at].text, c->number);
  line[length++] = '\r';
  line[length++] = '\n';
  if ((tls == CLEAR ? write(c->fd, line, length) : SSL_write(c->ssl, line, length)) != length) fail(c, "only a part of the command was sent");
}

static void end(struct client *c) {
  if (c->at != commands) fail(c, "closed too early");
  took[done++] = now() - c->began;
  if (tls != CLEAR) {
    resumed += SSL_session_reused(c->ssl);
    SSL_shutdown(c->ssl);
    SSL_free(c->ssl);
    ERR_clear_error();
  }
  close(c->fd);
  if (toBegin > 0) {
    toBegin--;
    begin(c);
  }
}

/* The last five octets of the answer so far. */
static void keepTail(struct client *c, const char *octets, long length) {
  if (length >= 5) {
    memcpy(c->tail, octets + length - 5, c->tailLength = 5);
    return;
  }
  int keep = c->tailLength + length > 5 ? 5 - (int)length : c->tailLength;
  memmove(c->tail, c->tail + c->tailLength - keep, keep);
  memcpy(c->tail + keep, octets, length);
  c->tailLength = keep + (int)length;
}

static void readAnswer(struct client *c, const char *octets, long length) {
  if (c->at == commands) fail(c, "octets after the last answer");
  const struct command *command = c->at < 0 ? NULL : &script[c->at];
  if (!c->inBody) {
    const char *lf = memchr(octets, '\n', length);
    long part = lf == NULL ? length : lf + 1 - octets;
    if (c->headLength + part > (long)sizeof c->head) fail(c, "no end of the first line");
    memcpy(c->head + c->headLength, octets, part);
    c->headLength += (int)part;
    if (lf == NULL) return;
    const char *expected = command == NULL ? "+OK" : command->expected;
    if (strncmp(c->head, expected, strlen(expected)) != 0 || c->head[c->headLength - 2] != '\r') fail(c, "wrong answer");
    octets += part;
    length -= part;
    if (command == NULL || !command->isMultiline) {
      if (length > 0) fail(c, "more than one line");
      next(c);
      return;
    }
    c->inBody = 1;
    memcpy(c->tail, "\r\n", c->tailLength = 2);
  }
  if (length == 0) return;
  c->octets += length;
  if (command->lines > 0)
    for (const char *at = octets; (at = memchr(at, '\n', octets + length - at)) != NULL; at++) c->lines++;
  keepTail(c, octets, length);
  if (c->tailLength < 5 || memcmp(c->tail, "\r\n.\r\n", 5) != 0) return;
  if (command->octets > 0 && c->octets != command->octets) fail(c, "wrong number of octets");
  if (command->lines > 0 && c->lines != command->lines) fail(c, "wrong number of lines");
  next(c);
}

static void readScript(void) {
  char line[512], octets[24], lines[24];
  while (fgets(line, sizeof line, stdin) != NULL) {
    struct command *c = &script[commands++];
    if (commands > MOST_COMMANDS || sscanf(line, "%23s %23s %63s %159[^\n]", octets, lines, c->expected, c->text) != 4) {
      fprintf(stderr, "bad script: %s", line);
      exit(100);
    }
    c->isMultiline = octets[0] != '-';
    c->octets = atol(octets);
    c->lines = atol(lines);
    for (char *s = c->expected; *s != '\0'; s++) if (*s == '_') *s = ' ';
  }
}

/* Reads until TLS has no more data. */
static void receiveTls(struct client *c, unsigned events) {
  if ((events & EPOLLOUT) != 0) {
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    epoll_ctl(poller, EPOLL_CTL_MOD, c->fd, &event);
  }
  for (;;) {
    int got = SSL_read(c->ssl, buffer, BUFFER);
    if (got > 0) {
      received += got;
      readAnswer(c, buffer, got);
      continue;
    }
    int error = SSL_get_error(c->ssl, got);
    if (error == SSL_ERROR_WANT_READ) return;
    /* Some servers close the connection without close_notify. */
    if (error == SSL_ERROR_ZERO_RETURN || c->at == commands) {
      end(c);
      return;
    }
    ERR_print_errors_fp(stderr);
    fail(c, "TLS failed");
  }
}

static int compare(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return x < y ? -1 : x > y;
}

int main(int argc, char **argv) {
  if (argc < 5 || argc > 8) return 100;
  const char *kind = argc > 5 ? argv[5] : "clear";
  tls = strcmp(kind, "full") == 0 ? FULL : strcmp(kind, "resumed") == 0 ? RESUMED : CLEAR;
  addresses = argc > 6 ? atol(argv[6]) : 0;
  holds = argc > 7;
  signal(SIGPIPE, SIG_IGN);
  if (tls != CLEAR) makeContext();
  count = atoi(argv[2]);
  long sessions = atol(argv[3]);
  if (count < 1 || count > MOST_CLIENTS || sessions < count) return 100;
  server = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(atoi(argv[1])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  took = calloc(sessions, sizeof *took);
  tookToLogin = calloc(sessions + count, sizeof *tookToLogin);
  poller = epoll_create1(0);
  readScript();
  double began = now();
  toBegin = holds ? count : sessions - count;
  for (int i = 0; i < count; i++) {
    clients[i].number = atoi(argv[4]) + i;
    begin(&clients[i]);
  }
  while (done < sessions) {
    struct epoll_event events[256];
    int ready = epoll_wait(poller, events, 256, 60000);
    if (ready == 0) fail(&clients[0], "no client received an answer for a minute");
    for (int i = 0; i < ready; i++) {
      struct client *c = events[i].data.ptr;
      if (tls != CLEAR) {
        receiveTls(c, events[i].events);
        continue;
      }
      long got = read(c->fd, buffer, BUFFER);
      if (got > 0) {
        received += got;
        readAnswer(c, buffer, got);
      } else if (got == 0) end(c);
      else if (errno != EAGAIN && errno != EINTR) fail(c, strerror(errno));
    }
  }
  double seconds = now() - began;
  struct rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  double cpu = usage.ru_utime.tv_sec + usage.ru_stime.tv_sec + (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
  qsort(took, sessions, sizeof *took, compare);
  qsort(tookToLogin, loggedIn, sizeof *tookToLogin, compare);
  double login50 = loggedIn == 0 ? 0 : tookToLogin[loggedIn / 2], login99 = loggedIn == 0 ? 0 : tookToLogin[loggedIn * 99 / 100];
  printf("{\"perSecond\": %.1f, \"p50\": %.6f, \"p95\": %.6f, \"p99\": %.6f, \"longest\": %.6f, \"login50\": %.6f, \"login99\": %.6f, "
         "\"octets\": %ld, \"resumed\": %ld, \"cpu\": %.4f}\n",
         sessions / seconds, took[sessions / 2], took[sessions * 95 / 100], took[sessions * 99 / 100], took[sessions - 1], login50,
         login99, received, resumed, cpu);
  return 0;
}
