/**
 * `demo-smtpd DOMAIN USER MAILDIR`: the SMTP server of `auth-relay up --demo`, on descriptors 0 and
 * 1. The gate starts it for each connection, as it would start qmail-smtpd. It needs no settings
 * file and no other program file.
 */
import '../../base/inspector.ts'
import { Socket } from 'node:net'
import { EXIT } from '../../base/errors.ts'
import { createLog } from '../../base/log.ts'
import { serveSmtp } from './smtp-session.ts'

const [domain, user, maildir] = process.argv.slice(2)
if (domain === undefined || user === undefined || maildir === undefined) {
  process.stderr.write('demo-smtpd: usage: demo-smtpd DOMAIN USER MAILDIR, with a client on descriptor 0\n')
  process.exitCode = EXIT.usage
} else {
  // biome-ignore lint/style/noProcessEnv: UCSPI names the client in the environment
  const { RELAYCLIENT: relayClient, TCPREMOTEIP: remoteIp = '0.0.0.0' } = process.env
  const options = { domain, user, maildir, relayClient, remoteIp }
  serveSmtp(new Socket({ fd: 0, readable: true, writable: true }), options, createLog('demo-smtpd'))
}
