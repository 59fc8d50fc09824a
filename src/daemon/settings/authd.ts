import { BARE, flag, list, path, socketAddresses, text } from './rows.ts'
import { defineSection } from './section.ts'

export const AUTHD = defineSection('authd', 'Hears of logins and keeps the grants.', {
  socket: path('/run/auth-relay/authd.sock', 'Unix socket where popup announces logins.'),
  socket_users: list([], 'Accounts besides our own that may announce logins there.'),
  syslog_fifo: path('', 'FIFO that syslogd writes to, e.g. /var/pop3-auth/fifo.', BARE),
  syslog_listen: socketAddresses([], 'Loopback addresses where rsyslog delivers by TCP.'),
  syslog_hosts: list([], 'Host names whose lines count; empty: all.', BARE),
  check_daemon_ipop3d: flag(false, 'Lines of uw-imap ipop3d.', BARE),
  check_daemon_vchkpw: flag(false, 'Lines of vpopmail vchkpw.', BARE),
  check_daemon_hacked_qmailpop3d: flag(false, 'Lines of our pop3d and of the patched qmail-pop3d.', BARE),
  check_imap: flag(false, 'IMAP logins of these daemons count as well.', BARE),
  vchkpw_tag: text('vpopmail', 'Tag of vchkpw lines.', BARE),
})
