import { cdb } from './cdb.ts'
import type { FuzzTarget } from './fuzz-target.ts'
import { gateQueries } from './gate-queries.ts'
import { loginEvents } from './line-protocols.ts'
import { logSources } from './log-sources.ts'
import { messageText } from './message-text.ts'
import { monitorMessages } from './monitor-messages.ts'
import { pop3Lines } from './pop3-lines.ts'
import { pop3Tables } from './pop3-tables.ts'
import { clientHello, proxyHeader, sslPreamble } from './preambles.ts'
import { relayAnswers } from './relay-answers.ts'
import { settingsFile } from './settings-file.ts'
import { smtpFront } from './smtp-front.ts'
import { syslogLines } from './syslog-lines.ts'
import { workerLines } from './worker-lines.ts'

/** All readers of bytes from outside the process. */
export const TARGETS: readonly FuzzTarget[] = [
  pop3Lines,
  pop3Tables,
  sslPreamble,
  proxyHeader,
  clientHello,
  syslogLines,
  loginEvents,
  gateQueries,
  cdb,
  settingsFile,
  monitorMessages,
  smtpFront,
  logSources,
  workerLines,
  messageText,
  relayAnswers,
]
