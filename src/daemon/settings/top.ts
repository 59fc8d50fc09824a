import { choice, flag, path } from './rows.ts'
import { defineSection } from './section.ts'

export const TOP = defineSection('', 'For every program.', {
  configured: flag(false, 'No daemon starts until the administrator has read this file and set this to true.'),
  run_dir: path('/run/auth-relay', 'Directory of the Unix sockets between the programs.'),
  state_dir: path(
    '/var/lib/auth-relay',
    'Directory of what must survive a restart: embedded database, places in log files.',
  ),
  log_level: choice(['debug', 'info', 'warn', 'error'], 'info', 'Least important event that is logged.'),
  syslog: flag(true, 'Send our own login lines to syslog (facility mail) through one logger child.'),
})
