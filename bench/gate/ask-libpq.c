/*
 * The original's design in its smallest form: query PostgreSQL, set RELAYCLIENT, run the smtpd.
 * Usage: ask-libpq CONNINFO SMTPD, under tcpserver.
 */
#include <libpq-fe.h>
#include <stdlib.h>
#include <unistd.h>

int main(int argc, char **argv) {
  if (argc < 3) return 100;
  const char *ip = getenv("TCPREMOTEIP");
  PGconn *connection = PQconnectdb(argv[1]);
  if (ip && PQstatus(connection) == CONNECTION_OK) {
    const char *values[] = {ip};
    PGresult *result = PQexecParams(connection, "SELECT 1 FROM relay_gate WHERE ip = $1::inet AND until > now()", 1, NULL,
                                    values, NULL, NULL, 0);
    if (PQresultStatus(result) == PGRES_TUPLES_OK && PQntuples(result) == 1) setenv("RELAYCLIENT", "", 1);
    PQclear(result);
  }
  PQfinish(connection);
  execv(argv[2], argv + 2);
  return 111;
}
