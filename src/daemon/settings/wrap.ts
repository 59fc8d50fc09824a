import { BARE, command, integer, path, socketAddresses, text } from './rows.ts'
import { defineSection } from './section.ts'

export const WRAP = defineSection('wrap', 'The gate in front of the SMTP server.', {
  listen: socketAddresses([], 'Addresses where the resident gate accepts SMTP connections.'),
  smtpd: command([], 'The real smtpd with its arguments; empty: QMAILDIR/bin/QMAIL_SMTPD_NOAUTH.'),
  smtpd_user: text('', 'Account under which the resident gate runs the smtpd; empty: its own.'),
  qmaildir: path('/var/qmail', 'Root of the qmail installation.', BARE),
  qmail_smtpd_noauth: text(
    'qmail-smtpd.noauth',
    'Name of the real smtpd below qmaildir/bin, or its absolute path.',
    BARE,
  ),
  relayclient_value: text('', 'Value of RELAYCLIENT for a granted address.', BARE),
  wrap_timeout: integer(3, 1, 30, 'Seconds for the whole question; after that the relay stays closed.', BARE),
})
