/**
 * A double of qmail-smtpd with the parser of the original, on descriptors 0 and 1: `node
 * qmail-smtpd.ts FILE`.
 *
 * A command ends at LF. An address begins behind the first `<` or `:`. A line of content that ends
 * with a bare LF gets the reply 451, and the session ends. The input goes to FILE. Each accepted
 * message adds the line `message FROM TO...` to FILE.messages.
 */
import { appendFileSync, readSync, writeSync } from 'node:fs'

const [, , file = '/dev/null'] = process.argv
const buffer = Buffer.alloc(65_536)
let [at, size] = [0, 0]

/** Reads the next octet. At the end of the input the process exits. */
function octet(): number {
  if (at === size) {
    size = readSync(0, buffer)
    at = 0
    if (size === 0) process.exit(1)
    appendFileSync(file, buffer.subarray(0, size))
  }
  at += 1
  return buffer[at - 1] ?? 0
}

/** The process exits if the reply cannot be written. */
function reply(text: string): void {
  try {
    writeSync(1, `${text}\r\n`)
  } catch {
    process.exit(1)
  }
}

function readLine(): string {
  const line: number[] = []
  for (let next = octet(); next !== 10; next = octet()) line.push(next)
  return Buffer.from(line).toString('latin1').replace(/\r$/, '')
}

/** The function blast() of qmail-smtpd. State 1 is the beginning of a line. */
function readMessage(): void {
  let state = 1
  for (;;) {
    const next = octet()
    if (next === 10 && state !== 3 && state !== 4) {
      reply('451 See https://pobox.com/~djb/docs/smtplf.html.')
      process.exit(1)
    }
    if (next === 10) {
      if (state === 3) return
      state = 1
    } else if (next === 13) state = state === 2 ? 3 : 4
    else state = next === 46 && state === 1 ? 2 : 0
  }
}

const addressOf = (argument: string): string => {
  const begin = argument.includes('<') ? argument.indexOf('<') : argument.indexOf(':')
  return argument
    .slice(begin + 1)
    .trim()
    .replace(/>.*$/, '')
}

let sender: string | undefined
let recipients: string[] = []
reply('220 mx.example.org ESMTP')
for (;;) {
  const line = readLine()
  const [verb = ''] = line.split(' ')
  const argument = line.slice(verb.length + 1)
  switch (verb.toLowerCase()) {
    case 'helo':
    case 'ehlo':
      sender = undefined
      reply('250-mx.example.org')
      reply('250-PIPELINING')
      reply('250-STARTTLS')
      reply('250 8BITMIME')
      break
    case 'mail':
      sender = addressOf(argument)
      recipients = []
      reply('250 ok')
      break
    case 'rcpt':
      if (sender === undefined) reply('503 MAIL first (#5.5.1)')
      else if (process.env['RELAYCLIENT'] === undefined && !addressOf(argument).endsWith('@example.org'))
        reply("553 sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)")
      else {
        recipients.push(addressOf(argument))
        reply('250 ok')
      }
      break
    case 'data':
      if (sender === undefined || recipients.length === 0) {
        reply('503 RCPT first (#5.5.1)')
        break
      }
      reply('354 go ahead')
      readMessage()
      appendFileSync(`${file}.messages`, `message ${sender} ${recipients.join(' ')}\n`)
      sender = undefined
      reply('250 ok 1 qp 2')
      break
    case 'rset':
      sender = undefined
      reply('250 flushed')
      break
    case 'noop':
      reply('250 ok')
      break
    case 'quit':
      reply('221 mx.example.org')
      process.exit(0)
      break
    default:
      reply('502 unimplemented (#5.5.1)')
  }
}
