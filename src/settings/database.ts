import { BARE, choice, defineSection, flag, integer, password, path, text } from './rows.ts'

export const DATABASE = defineSection('database', 'Where the grants are kept: PostgreSQL.', {
  embedded: flag(
    false,
    'Start a PostgreSQL of our own below state_dir (auth-relay up). Otherwise dbhost names a server.',
  ),
  embedded_user: text(
    'auth-relay-db',
    'Account of the embedded PostgreSQL, if auth-relay up is started as root. No other program may use this account.',
  ),
  dbhost: text(
    'localhost',
    'Server, or several separated by commas: the primary among them is followed. A directory means its Unix socket.',
    BARE,
  ),
  dbport: integer(5432, 1, 65535, 'Port of the server.', BARE),
  dbname: text('pop3authd', 'Name of the database.', BARE),
  dbuser: text('pop3authd', 'Role of authd: writes.', BARE),
  dbpass: password('Password of dbuser. Better: dbpass_file.', BARE),
  dbpass_file: path('', 'File with the password of dbuser, mode 0600.', BARE),
  wrap_dbuser: text('authwrap', 'Role of the gate: can only read.', BARE),
  wrap_dbpass: password('Password of wrap_dbuser. Better: wrap_dbpass_file.', BARE),
  wrap_dbpass_file: path('', 'File with the password of wrap_dbuser, readable by the gate alone.', BARE),
  status_dbuser: text('authstatus', 'Role of the status page: can only read.', BARE),
  status_dbpass: password('Password of status_dbuser. Better: status_dbpass_file.', BARE),
  status_dbpass_file: path('', 'File with the password of status_dbuser.', BARE),
  dbtls: choice(
    ['off', 'verify'],
    'off',
    'TLS toward the server. verify checks the certificate against dbtls_ca.',
    BARE,
  ),
  dbtls_ca: path('', 'CA certificates (PEM) for dbtls = "verify". Empty: those of the system.', BARE),
})
