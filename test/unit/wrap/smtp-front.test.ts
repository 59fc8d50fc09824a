import { once } from 'node:events'
import { existsSync, readFileSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { afterAll, afterEach, describe, expect, test } from 'vitest'
import { createLog } from '../../../src/base/log.ts'
import { holdListener } from '../../../src/process/listener.ts'
import { epollEngine } from '../../../src/sockets/epoll-engine.ts'
import { CustomerNetworks } from '../../../src/wire/customer-networks.ts'
import { NetworkSet, parseIpAddress } from '../../../src/wire/ip-address.ts'
import { type AskGrant, decide } from '../../../src/wrap/decision.ts'
import { GrantRules } from '../../../src/wrap/front/grant-rules.ts'
import { GrantTerm } from '../../../src/wrap/front/grant-term.ts'
import { type FrontTimes, SmtpFront } from '../../../src/wrap/front/smtp-front.ts'
import { ResidentGate } from '../../../src/wrap/gate/resident-gate.ts'
import { MailCounts } from '../../../src/wrap/mail-counts.ts'
import { eventually } from '../../harness/eventually.ts'
import { SmtpConversation } from '../../harness/smtp/smtp-conversation.ts'
import { temporaryDirectory } from '../../harness/temporary-directory.ts'

const directory = temporaryDirectory()
afterAll(() => directory.remove())
const SMTPD = new URL('../../harness/smtp/qmail-smtpd.ts', import.meta.url).pathname

const open: { gate: ResidentGate; sockets: Set<Socket> }[] = []
afterEach(async () => {
  for (const { gate, sockets } of open.splice(0)) {
    for (const socket of sockets) socket.destroy()
    await gate.drain(5000)
  }
})

const HOUR = 3_600_000
/** Answers three commands, then a message before its end, and ends. */
const TOO_LARGE = `
answer() { read -r line; printf '%s\\r\\n' "$1"; }
printf '220 x\\r\\n'; answer '250 ok'; answer '250 ok'; answer '354 go ahead'; answer '552 too large'`
let runs = 0

type Options = {
  readonly ask?: AskGrant
  readonly argv?: readonly string[]
  readonly messages?: number
  readonly times?: Partial<FrontTimes>
}

/**
 * A gate with the front, with the sender bound to the login ann@example.org, before a double of
 * qmail-smtpd.
 */
async function start({ ask, argv, messages = 0, times }: Options = {}) {
  const lines: string[] = []
  const refusals: string[] = []
  const faults: string[] = []
  runs += 1
  const file = `${directory.path}/saw${runs}`
  const mailCounts = new MailCounts(
    { messages_per_login: messages, messages_per_address: 0, recipients_per_login: 0, recipients_per_address: 0 },
    () => 10 * HOUR,
  )
  const log = createLog('wrap', { write: line => lines.push(line) })
  const grant: AskGrant = ask ?? (async () => ({ until: undefined, login: 'ann@example.org' }))
  const question = () => decide(parseIpAddress('192.0.2.7'), { ask: grant, refusal: () => undefined, timeoutMs: 1000 })
  let fronts = 0
  const gate = new ResidentGate({
    engine: epollEngine,
    file: argv?.[0] ?? process.execPath,
    argv: argv ?? [process.execPath, '--disable-warning=ExperimentalWarning', SMTPD, file],
    environment: { PATH: '/usr/bin:/bin' },
    relayclientValue: '',
    decide: address => decide(address, { ask: grant, refusal: () => undefined, timeoutMs: 1000 }),
    onDecision: () => {},
    log,
    proxyTrust: new NetworkSet([]),
    maxConnections: 0,
    maxPerAddress: 0,
    customers: new CustomerNetworks(),
    front: (client, server, session) => {
      fronts += 1
      const term = new GrantTerm(session.grant, question)
      return new SmtpFront(client, server, {
        ip: session.ip,
        rules: new GrantRules(
          term,
          ({ login, device, neighbours }) => ({
            login,
            device,
            neighbours,
            customer: session.ip,
            senderBinding: 'refuse',
            senderDomains: [],
            recipientDomains: [],
            mailCounts,
            onForeignSender: () => {},
          }),
          () => {},
        ),
        renewRules: () => term.renew(),
        lineEndings: () => 'strict',
        auth: 'pass',
        lineEndingAdvice: () => 'mend it',
        onFault: fault => void faults.push(fault),
        onRefusal: reason => void refusals.push(reason),
        log,
        fields: () => ({ ip: session.ip }),
        times: { idle: 60_000, discard: 60_000, linger: 5_000, ...times },
      })
    },
  })
  const held = await holdListener({ kind: 'tcp', host: '127.0.0.1', port: 0 }, 'wrap.listen')
  gate.listen(held)
  const { address } = held
  if (address.kind !== 'tcp') throw new Error('no port')
  const sockets = new Set<Socket>()
  open.push({ gate, sockets })
  const client = (): Socket => {
    const socket = connect(address.port, '127.0.0.1')
    sockets.add(socket)
    socket.on('error', () => {})
    return socket
  }
  return {
    gate,
    lines,
    refusals,
    faults,
    client,
    fronts: () => fronts,
    smtp: () => SmtpConversation.over(client()),
    saw: () => (existsSync(file) ? readFileSync(file, 'latin1') : ''),
    messages: () => (existsSync(`${file}.messages`) ? readFileSync(`${file}.messages`, 'latin1') : ''),
  }
}

/** Up to the reply to DATA. */
async function envelope(smtp: SmtpConversation, recipient = 'x@far.example'): Promise<void> {
  await smtp.expectSmtp(/^220/)
  smtp.say('EHLO c')
  const greeting = await smtp.expectSmtp(/^250/)
  expect(greeting.join(' ')).not.toContain('STARTTLS')
  smtp.say('MAIL FROM:<ann@example.org>')
  await smtp.expectSmtp(/^250/)
  smtp.say(`RCPT TO:<${recipient}>`)
  await smtp.expectSmtp(/^250/)
  smtp.say('DATA')
  await smtp.expectSmtp(/^354/)
}

describe('behind the front', () => {
  test('a message passes, and the server behind reports when it has accepted it', async () => {
    const { smtp, messages, lines } = await start()
    const session = smtp()
    await envelope(session)
    session.say('Subject: hi\r\n\r\nhello\r\n.')
    await session.expectSmtp(/^250 ok 1 qp 2/)
    await session.quit()
    expect(messages()).toBe('message ann@example.org x@far.example\n')
    await eventually('ended', () => lines.some(line => line.includes('event=smtpd_ended')))
    expect(lines[0]).toContain('front=1')
  })

  test('AUTH that the server does not offer is a fault of the client, once a session', async () => {
    const { smtp, faults, lines } = await start()
    const session = smtp()
    await session.expectSmtp(/^220/)
    for (const command of ['HELO c_1', 'AUTH LOGIN', 'AUTH PLAIN']) {
      session.say(command)
      await session.expectSmtp(command.startsWith('HELO') ? /^250/ : /^50/)
    }
    await session.quit()
    expect(faults).toEqual(['hello_replaced', 'auth_refused'])
    expect(lines.filter(line => line.includes('event=auth_refused'))).toHaveLength(1)
  })

  test('a sender of another mailbox is refused, and the server receives nothing of it', async () => {
    const { smtp, saw, lines } = await start()
    const session = smtp()
    await session.expectSmtp(/^220/)
    session.say('HELO c')
    await session.expectSmtp(/^250/)
    session.say('MAIL FROM:<ceo@example.org>')
    await session.expectSmtp(/^550 5\.7\.1 sender address does not belong to the mailbox/)
    session.say('RCPT TO:<x@far.example>')
    await session.expectSmtp(/^503/)
    await session.quit()
    expect(saw()).toBe('HELO c\r\nQUIT\r\n')
    expect(lines.join('')).toContain('event=mail_refused ip=127.0.0.1 reason=sender sender=ceo@example.org')
  })

  test('each refusal is reported, although a session logs only the first 20', async () => {
    const { smtp, lines, refusals } = await start()
    const session = smtp()
    await session.expectSmtp(/^220/)
    for (let count = 0; count < 25; count += 1) {
      session.say('MAIL FROM:<ceo@example.org>')
      await session.expectSmtp(/^550/)
    }
    expect(refusals).toEqual(Array(25).fill('sender'))
    await session.quit()
    expect(lines.filter(line => line.includes('event=mail_refused'))).toHaveLength(20)
  })

  test('two sessions share one limit, and a message that the server refuses does not count', async () => {
    const { smtp } = await start({ messages: 1 })
    const [first, second] = [smtp(), smtp()]
    await envelope(first)
    await second.expectSmtp(/^220/)
    second.say('MAIL FROM:<ann@example.org>')
    await second.expectSmtp(/^450 4\.7\.1 too much mail within an hour/)
    first.close()
    const third = smtp()
    await eventually('the count is returned', async () => {
      const probe = smtp()
      await probe.expectSmtp(/^220/)
      probe.say('MAIL FROM:<ann@example.org>')
      const [answer = ''] = await probe.expectSmtp(/^\d/)
      probe.close()
      return answer.startsWith('250')
    })
    await envelope(third)
    third.say('x\r\n.')
    await third.expectSmtp(/^250/)
    third.say('MAIL FROM:<ann@example.org>')
    await third.expectSmtp(/^450/)
  })

  test('a bare LF is refused, no message is made, and the reply has the reason', async () => {
    const { smtp, client, messages, saw } = await start()
    const socket = client()
    const session = SmtpConversation.over(socket)
    await envelope(session)
    socket.write('a\n.\nMAIL FROM:<ceo@example.org>\r\nRCPT TO:<x@far.example>\r\nDATA\r\nb\r\n.\r\n')
    await session.expectSmtp(/^550 5\.5\.2 .*mend it/)
    await once(socket, 'close')
    expect(messages()).toBe('')
    await eventually('read', () => saw().endsWith('DATA\r\na'))
    expect((await start()).fronts()).toBe(0)
    void smtp
  })

  test('a client that disconnects after the dot leaves its message, and one within a message leaves none', async () => {
    const { client, smtp, messages, lines } = await start()
    const ended = (count: number) =>
      eventually('the smtpd has ended', () => lines.filter(line => line.includes('event=smtpd_ended')).length === count)
    const socket = client()
    await envelope(SmtpConversation.over(socket), 'whole@far.example')
    socket.end('all of it\r\n.\r\n')
    await ended(1)
    expect(messages()).toBe('message ann@example.org whole@far.example\n')
    for (const [index, half] of ['half of it', 'half of it\r\n.', 'half of it\r\n.\r'].entries()) {
      const other = smtp()
      await envelope(other, 'half@far.example')
      other.write(half)
      other.close()
      await ended(index + 2)
    }
    expect(messages()).toBe('message ann@example.org whole@far.example\n')
  })

  test('a session that outlives its grant gets temporary refusals until the mailbox is opened again', async () => {
    let grant: Awaited<ReturnType<AskGrant>> = { until: undefined, login: 'ann@example.org' }
    const { smtp, saw } = await start({ ask: async () => grant })
    const session = smtp()
    await session.expectSmtp(/^220/)
    session.say('MAIL FROM:<ann@example.org>')
    await session.expectSmtp(/^250/)
    grant = undefined
    session.say('RSET')
    await session.expectSmtp(/^250/)
    session.say('MAIL FROM:<ann@example.org>')
    await session.expectSmtp(/^450 4\.7\.1 open the mailbox by POP3 again/)
    grant = { until: undefined, login: 'ann@example.org' }
    session.say('MAIL FROM:<ann@example.org>')
    await session.expectSmtp(/^250/)
    expect(saw().match(/^MAIL/gm)).toHaveLength(2)
  })

  test('MAIL of an open session is temporarily refused if the database gives no answer within the limit', async () => {
    let ask: AskGrant = async () => ({ until: undefined, login: 'ann@example.org' })
    const { smtp, lines, saw } = await start({ ask: (ip, signal) => ask(ip, signal) })
    const session = smtp()
    await session.expectSmtp(/^220/)
    for (const silent of [() => new Promise<undefined>(() => {}), () => Promise.reject(new Error('away'))]) {
      ask = silent
      session.say('MAIL FROM:<ann@example.org>')
      await session.expectSmtp(/^451 4\.3\.0 cannot find out whether the relay is open, try again later/)
    }
    expect(saw()).toBe('')
    expect(lines.filter(line => line.includes('event=mail_refused'))).toEqual([
      expect.stringContaining('reason=undecided'),
      expect.stringContaining('reason=undecided'),
    ])
    ask = async () => ({ until: undefined, login: 'ann@example.org' })
    session.say('MAIL FROM:<ann@example.org>')
    await session.expectSmtp(/^250/)
  })

  test('while MAIL waits for the database, later input of the client waits, and so does its end', async () => {
    const waiting: ((grant: Awaited<ReturnType<AskGrant>>) => void)[] = []
    let isHeld = false
    const grant = { until: undefined, login: 'ann@example.org' }
    const { client, saw } = await start({
      ask: async () => (isHeld ? new Promise(resolve => waiting.push(resolve)) : grant),
    })
    const socket = client()
    const session = SmtpConversation.over(socket)
    await session.expectSmtp(/^220/)
    isHeld = true
    socket.end('HELO c\r\nMAIL FROM:<ann@example.org>\r\nRCPT TO:<x@far.example>\r\nQUIT\r\n')
    await session.expectSmtp(/^250/)
    await eventually('asked', () => waiting.length > 0)
    expect(saw()).toBe('HELO c\r\n')
    waiting[0]?.(grant)
    for (const code of [/^250/, /^250/, /^221/]) await session.expectSmtp(code)
    expect(saw()).toContain('RCPT TO:<x@far.example>\r\nQUIT\r\n')
  })

  test('a client without a grant is connected to the server directly', async () => {
    const { smtp, fronts } = await start({ ask: async () => undefined })
    const session = smtp()
    const { code } = await session.askFor('x@far.example')
    expect(code).toBe(553)
    expect(fronts()).toBe(0)
  })

  test('a server that ends without a reply is reported', async () => {
    const { smtp } = await start({ argv: ['/bin/sh', '-c', 'printf "220 x\\r\\n"; read -r line'] })
    const session = smtp()
    await session.expectSmtp(/^220/)
    session.say('NOOP')
    await session.expectSmtp(/^421 4\.3\.0 the mail server behind ended the session/)
  })

  test('an early reply reaches the client although the server has ended while content was written', async () => {
    const { client } = await start({ argv: ['/bin/sh', '-c', TOO_LARGE] })
    const socket = client()
    const session = SmtpConversation.over(socket)
    await session.expectSmtp(/^220/)
    for (const [line, answer] of [
      ['MAIL FROM:<ann@example.org>', /^250/],
      ['RCPT TO:<x@far.example>', /^250/],
      ['DATA', /^354/],
    ] as const) {
      session.say(line)
      await session.expectSmtp(answer)
    }
    // More than the sockets in between hold, so that the server has ended before all of it is
    // written.
    socket.write(`${'x'.repeat(70)}\r\n`.repeat(100_000))
    await session.expectSmtp(/^552 too large/)
  })

  test('a client that reads its replies late gets all of them', async () => {
    const { client, messages } = await start()
    const socket = client()
    socket.pause()
    await once(socket, 'connect')
    const commands = `MAIL FROM:<ann@example.org>\r\n${'RCPT TO:<x@far.example>\r\n'.repeat(5000)}QUIT\r\n`
    socket.write(commands)
    let received = ''
    socket.on('data', octets => {
      received += String(octets)
    })
    socket.resume()
    await once(socket, 'end')
    expect(received.match(/250 ok/g)).toHaveLength(5001)
    expect(received.endsWith('221 mx.example.org\r\n')).toBe(true)
    expect(messages()).toBe('')
  })

  test('a session without an octet ends', async () => {
    const { smtp } = await start({ times: { idle: 200 } })
    const session = smtp()
    // On a slow machine before the banner.
    const [first = ''] = await session.expectSmtp(/^220|^421 4\.4\.2 idle/)
    if (first.startsWith('220')) await session.expectSmtp(/^421 4\.4\.2 idle/)
  })

  test('sessions are closed with 421 when the gate stops', async () => {
    const { smtp, gate } = await start()
    const session = smtp()
    await session.expectSmtp(/^220/)
    const drained = gate.drain(0)
    await session.expectSmtp(/^421 4\.3\.2/)
    await drained
  })
})
