import { globSync, readFileSync } from 'node:fs'
import { expect, test } from 'vitest'

/** Text of another form than an event on standard error, by the file that writes the text. */
const OTHER_TEXT = {
  'src/auth-relay/demo/smtpd.ts': 'wrong usage',
  'src/auth-relay/text/terminal.ts': 'progress of a verb on a terminal',
  'src/auth-relay/verbs/grants/block.ts': 'a warning of the verb',
  'src/auth-relay/verbs/passwd.ts': 'the prompt of the verb',
  'src/base/log.ts': 'the log',
  'src/pop3d/standalone.ts': 'wrong usage, and the line for the mail log',
  'src/process/lifecycle.ts': 'the ready line, and faults of a start',
  'src/wrap/run-wrap.ts': 'a warning about the command line',
  'src/wrap/starter/main.ts': 'wrong usage',
}

test('only the listed files write text that is no event to standard error', () => {
  const writers = globSync('src/**/*.ts').filter(file =>
    /stderr\.write\(|writeSync\(2\b|printToStandardError\(|\bconsole\./.test(readFileSync(file, 'utf8')),
  )
  expect(writers.sort()).toEqual(Object.keys(OTHER_TEXT))
})
