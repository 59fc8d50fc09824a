import type { Overrides } from './settings-text.ts'

/** The few settings of a kind of site, with the words for its file and for the administrator. */
export type Recipe = {
  readonly about: string
  readonly overrides: Overrides
  /** Comment lines at the top of the file. */
  readonly notes: readonly string[]
  /** Units of the package that the site needs. */
  readonly units: readonly string[]
  /** What is left to do outside of auth-relay, with the section of docs/INSTALL.md. */
  readonly next: readonly string[]
}

const LOG_READER = {
  overrides: {
    popup: { listen: [] },
    authd: { syslog_listen: ['127.0.0.1:6514'], check_daemon_dovecot: true },
  },
  notes: [
    'The POP3 server stays, and authd reads its log. check_daemon_dovecot is for Dovecot. For another server write',
    'check_daemon_courier, check_daemon_cyrus or another name of: auth-relay settings authd',
  ],
  next: ['Let rsyslog send the mail log to authd: INSTALL, "Log reader", step 4.'],
} as const

/** What `auth-relay init --for` knows. */
export const RECIPES = {
  postfix: {
    about: 'Postfix, and a POP3 server whose log is read',
    overrides: { ...LOG_READER.overrides, wrap: { policy_listen: ['127.0.0.1:10040'] } },
    notes: LOG_READER.notes,
    units: ['authd', 'wrap'],
    next: [...LOG_READER.next, 'Let Postfix ask the gate: INSTALL, "Postfix".'],
  },
  exim: {
    about: 'Exim, and a POP3 server whose log is read',
    overrides: { ...LOG_READER.overrides, wrap: { question_listen: ['127.0.0.1:10042'] } },
    notes: LOG_READER.notes,
    units: ['authd', 'wrap'],
    next: [...LOG_READER.next, 'Let Exim ask the gate: INSTALL, "Exim".'],
  },
  qmail: {
    about: 'qmail-smtpd behind the gate; popup and pop3d serve the mailboxes',
    overrides: {
      popup: { listen: ['*:110'], checker: 'checkpassword', checkpassword: ['/bin/checkpassword'] },
      wrap: {
        listen: ['*:25'],
        smtpd: ['/var/qmail/bin/qmail-smtpd'],
        smtpd_user: 'qmaild',
        rules: '/etc/tcp.smtp.cdb',
      },
    },
    notes: ['sslwrap answers port 995 before popup. The gate takes the place of tcpserver on port 25.'],
    units: ['authd', 'popup', 'sslwrap', 'wrap'],
    next: ['Let the gate start qmail-smtpd: INSTALL, "Whole stack with qmail", step 3.'],
  },
  logs: {
    about: 'a host that reads a log and has no gate: the mail server is on another host',
    overrides: LOG_READER.overrides,
    notes: LOG_READER.notes,
    units: ['authd'],
    next: LOG_READER.next,
  },
} as const satisfies Readonly<Record<string, Recipe>>

export type RecipeName = keyof typeof RECIPES

export const isRecipeName = (word: string): word is RecipeName => Object.hasOwn(RECIPES, word)
