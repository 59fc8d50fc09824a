import { BARE, choice, defineSection, duration, engine, flag, withQmailDefault } from './rows.ts'

export const POP3D = defineSection('pop3d', 'Serves maildrops.', {
  sizes: withQmailDefault(
    choice(
      ['wire', 'file'],
      'wire',
      'wire: octets as sent (RFC 1939); file: bytes of the file, as qmail, and the default with popup.compat = "qmail".',
      BARE,
    ),
    'file',
  ),
  extra_blank: withQmailDefault(
    flag(
      false,
      'End every message with one more empty line, as qmail-pop3d does. LIST does not count it. With popup.compat = "qmail" the default is true.',
      BARE,
    ),
    true,
  ),
  lock: choice(
    ['none', 'exclusive'],
    'none',
    'exclusive: a second session on the same maildrop is told [IN-USE].',
    BARE,
  ),
  idle_time: duration('s', 1200, 600, 86_400, 'Time without a command after which a session ends.'),
  engine: engine('processes that serve maildrops'),
  worker_idle: duration('s', 60, 1, 86_400, 'Time after its last session at which the process of an owner ends.'),
})
