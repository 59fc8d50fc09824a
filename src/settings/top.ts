import { choice, defineSection, flag, path, RUN_DIR, socketAddress, text } from './rows.ts'

export const STATUS_PAGE = defineSection(
  'status-page',
  'A page for the browser of whoever runs this host; it shows and changes nothing.',
  {
    listen: socketAddress(
      '',
      'Where it is served: a loopback address, e.g. "127.0.0.1:8110", or unix:/run/auth-relay/status/page.sock for root alone. Whoever can connect reads logins and addresses. Empty: no page.',
    ),
    user: text('auth-relay-status', 'Account of the process that serves it.'),
  },
)

export const TOP = defineSection('', 'For every program.', {
  configured: flag(false, 'No daemon starts until the administrator has read this file and set this to true.'),
  run_dir: path(RUN_DIR, 'Directory of the Unix sockets between the programs.'),
  state_dir: path(
    '/var/lib/auth-relay',
    'Directory of what must survive a restart: embedded database, places in log files.',
  ),
  log_level: choice(['debug', 'info', 'warn', 'error'], 'info', 'Least important event that is logged.'),
  syslog: flag(true, 'Send our own login lines to syslog (facility mail) through one logger child.'),
})
