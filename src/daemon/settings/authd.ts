import { BARE, command, duration, flag, list, path, socketAddress, socketAddresses, text } from './rows.ts'
import { defineSection } from './section.ts'

export const AUTHD = defineSection('authd', 'Hears of logins and keeps the grants.', {
  user: text(
    '',
    'Account that authd takes, if started as root, once its sockets, FIFO and log files are open: it must be able to open them again after a rotation. Empty: none other.',
  ),
  socket: path('/run/auth-relay/authd.sock', 'Unix socket where popup announces logins.'),
  socket_users: list([], 'Accounts besides our own that may announce logins there.'),
  uses_socket: path(
    '/run/auth-relay/uses.sock',
    'Unix socket where the gate reports who needed a grant and what it decided. Empty: none.',
  ),
  uses_users: list([], 'Accounts besides our own and wrap.user that may report there.'),
  commit_wait: duration(
    'ms',
    800,
    10,
    60_000,
    'Time after which an announced login is answered "queued" if its grant is not stored yet.',
  ),
  syslog_fifo: path(
    '',
    'FIFO that syslogd writes to, e.g. /var/pop3-auth/fifo; it belongs to the account of authd. rsyslog drops lines of a burst: syslog_listen is better.',
    BARE,
  ),
  syslog_listen: socketAddresses(
    [],
    'Loopback addresses where rsyslog delivers by TCP (omfwd), e.g. ["127.0.0.1:6514"]. The rule for rsyslog stands in to-authd-tcp.conf.',
  ),
  follow_files: list([], 'Log files to follow, through rotation and truncation, e.g. ["/var/log/mail.log"].'),
  journal: flag(
    false,
    'Follow the systemd journal. Entries of root count, and those of journal_users and journal_units.',
  ),
  journal_users: list(
    ['cyrus', 'dovecot'],
    'Accounts besides root whose journal entries count. Only accounts of mail daemons: each of them can grant any address.',
  ),
  journal_units: list(
    [],
    'systemd units whose journal entries count under any account, e.g. "inetd.service": ipop3d and qpopper log under the account of the user.',
  ),
  journal_command: command(
    ['journalctl'],
    'Program that prints the journal; options for output, following and place are added.',
  ),
  syslog_hosts: list([], 'Host names whose lines count; empty: all.', BARE),
  max_lag: duration(
    's',
    0,
    0,
    86_400,
    'Age by its stamp at which a login of a log line or of the journal grants nothing, if that is less than grants.exp_time. 0 means exp_time.',
    BARE,
  ),
  check_imap: flag(false, 'IMAP logins of these daemons count as well.', BARE),
  check_daemon_ipop3d: flag(false, 'Lines of uw-imap ipop3d and imapd.', BARE),
  check_daemon_vchkpw: flag(false, 'Lines of vpopmail vchkpw, built with --enable-logging=y or v.', BARE),
  check_daemon_hacked_qmailpop3d: flag(false, 'Lines of our pop3d and of the patched qmail-pop3d.', BARE),
  check_daemon_dovecot: flag(false, 'Lines of Dovecot up to 2.4.', BARE),
  check_daemon_courier: flag(false, 'Lines of Courier pop3d and imapd.', BARE),
  check_daemon_cyrus: flag(false, 'Lines of Cyrus pop3d and imapd.', BARE),
  check_daemon_qpopper: flag(false, 'Lines of qpopper.', BARE),
  check_daemon_solid: flag(false, 'Lines of solid-pop3d built with log-extend.', BARE),
  check_daemon_solid_two_lines: flag(
    false,
    'Lines of solid-pop3d without log-extend: two lines joined by PID, the weakest form.',
    BARE,
  ),
  check_daemon_teapop: flag(false, 'Lines of teapop (facility local0).', BARE),
  check_daemon_tpop3d: flag(false, 'Lines of tpop3d.', BARE),
  check_daemon_gnu_pop3d: flag(false, 'Lines of gnu-pop3d.', BARE),
  check_daemon_vm_pop3d: flag(false, 'Lines of vm-pop3d, one line a login.', BARE),
  check_daemon_vm_pop3d_two_lines: flag(
    false,
    'Lines of older vm-pop3d: two lines joined by PID, the weakest form.',
    BARE,
  ),
  check_daemon_perdition: flag(false, 'Lines of the perdition proxy.', BARE),
  check_daemon_cucipop: flag(
    false,
    'Lines of cucipop, written when a session ends: no word in them says that a login succeeded, only their shape. Better left off.',
    BARE,
  ),
  check_daemon_popa3d: flag(
    false,
    'Lines of popa3d (facility daemon): two lines joined by PID, the weakest form.',
    BARE,
  ),
  vchkpw_tag: text('vpopmail', 'Tag of vchkpw lines.', BARE),
  daemon_tags: list([], 'Other tags, each as DIALECT=TAG, e.g. "dovecot=dovecot-pop"; they replace the usual ones.'),
  metrics_listen: socketAddress('', 'Loopback address for Prometheus, e.g. "127.0.0.1:9633". Empty: none.'),
})
