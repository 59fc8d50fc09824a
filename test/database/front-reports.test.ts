import { once } from 'node:events'
import { createServer } from 'node:net'
import { afterAll, beforeAll, expect, inject, onTestFinished, test } from 'vitest'
import { parseSettings } from '../../src/settings/settings.ts'
import { nodeEngine } from '../../src/sockets/node-engine.ts'
import { OwnedDescriptor } from '../../src/sockets/owned-descriptor.ts'
import { parseDeviceMessages, parseRelayTally } from '../../src/wire/usage-event.ts'
import { ClientFaultTimes } from '../../src/wrap/front/client-faults.ts'
import { GateSetup } from '../../src/wrap/gate/gate-setup.ts'
import { MailCounts } from '../../src/wrap/mail-counts.ts'
import { ip } from '../harness/addresses.ts'
import { eventually } from '../harness/eventually.ts'
import { createTestDatabase, type TestDatabase } from '../harness/postgres/test-database.ts'
import { temporaryDirectory } from '../harness/temporary-directory.ts'

const directory = temporaryDirectory()
let database: TestDatabase
beforeAll(async () => {
  database = await createTestDatabase()
  await database.owner.script(`INSERT INTO grants (ip, until, daemon, username)
    VALUES ('192.0.2.7', now() + interval '10 minutes', 'popup', 'ann@example.org')`)
})
afterAll(async () => {
  await database.remove()
  directory.remove()
})

/** A socket whose octets are kept. */
function peer(descriptor: OwnedDescriptor) {
  let received = ''
  const socket = nodeEngine.twoWay(descriptor, {
    data: octets => {
      received += Buffer.from(octets).toString()
    },
    ended: () => {},
    room: () => {},
  })
  socket.resume()
  onTestFinished(() => socket.destroy())
  const reads = (text: string): Promise<unknown> => eventually(`receives ${text}`, () => received.includes(text))
  return { say: (line: string) => socket.write(Buffer.from(`${line}\r\n`)), reads }
}

/** The socket of authd, whose lines are kept. */
async function openAuthd(name: string) {
  const path = `${directory.path}/${name}.sock`
  let reports = ''
  const authd = createServer(socket =>
    socket.on('data', piece => {
      reports += String(piece)
    }),
  )
  authd.listen(path)
  await once(authd, 'listening')
  onTestFinished(() => void authd.close())
  return { path, lines: () => reports.split('\n') }
}

/** A session of 192.0.2.7 behind the front of a gate with these settings. */
async function openSession(authd: string, wrap: string) {
  const { host, port } = inject('postgres')
  const { settings } = parseSettings(
    `log_level = "error"
[database]
dbhost = "${host}"
dbport = ${port}
dbname = "${database.name}"
wrap_dbpass = "authwrap"
[authd]
usage_socket = "${authd}"
[wrap]
front = true
smtpd = ["/bin/cat"]
${wrap}
`,
    'test.toml',
  )
  const gate = new GateSetup(settings, { PATH: '/bin' })
  onTestFinished(() => gate.close())
  const { front } = gate.gateOptions(nodeEngine, new MailCounts(settings.wrap, () => 0), new ClientFaultTimes(() => 0))
  const [[client, clientEnd], [server, serverEnd]] = [OwnedDescriptor.pair(), OwnedDescriptor.pair()]
  const session = { ip: ip('192.0.2.7'), grant: { until: undefined, login: 'ann@example.org' }, pid: 1 }
  const opened = front?.(
    listener => nodeEngine.twoWay(clientEnd, listener),
    listener => nodeEngine.twoWay(serverEnd, listener),
    session,
  )
  const [sender, smtpd] = [peer(client), peer(server)]
  smtpd.say('220 mx.example.org')
  await sender.reads('220 mx')
  let answers = 0
  return {
    sender,
    smtpd,
    /** Sends commands that the smtpd accepts. */
    accepted: async (...commands: readonly string[]): Promise<void> => {
      for (const line of commands) {
        answers += 1
        sender.say(line)
        await smtpd.reads(line)
        smtpd.say(`${line === 'DATA' ? 354 : 250} answer ${answers}`)
        await sender.reads(`answer ${answers}`)
      }
    },
    end: async (): Promise<void> => {
      opened?.endSession('stopped', '421 4.3.2 end')
      await opened?.closed
    },
  }
}

test('authd receives the refused commands and the accepted messages of a session behind the front', async () => {
  const authd = await openAuthd('decisions')
  const { sender, smtpd, accepted, end } = await openSession(authd.path, 'sender_binding = "refuse"')
  sender.say('MAIL FROM:<ceo@example.org>')
  await sender.reads('550 5.7.1 sender address does not belong')
  await accepted('MAIL FROM:<ann@example.org>', 'RCPT TO:<x@far.example>', 'DATA')
  sender.say('text\r\n.')
  await smtpd.reads('text\r\n.\r\n')
  smtpd.say('250 accepted')
  await sender.reads('250 accepted')
  const counted = () => {
    const tallies = authd.lines().flatMap(line => parseRelayTally(line) ?? [])
    const sum = (verdict: 'relayed' | 'refused' | 'undecided') =>
      tallies.reduce((count, { service, counts }) => count + (service === 'front' ? counts[verdict] : 0), 0)
    return { relayed: sum('relayed'), refused: sum('refused'), undecided: sum('undecided') }
  }
  await eventually('the reports', () => counted().relayed > 0)
  expect(counted()).toEqual({ relayed: 1, refused: 1, undecided: 0 })
  await end()
})

test('the sender chooses the device, whose line ends are repaired and whose messages are counted', async () => {
  await database.owner.script(`
    INSERT INTO devices (name, senders, networks, recipient_domains, messages_per_hour, messages_per_day, recipients_per_hour,
      recipients_per_day, line_endings, until, owner, note)
    VALUES ('copier-2', '{scan@example.org}', '{}', '{}', 0, 0, 0, 0, 'repair', 'infinity', '', '');
    INSERT INTO device_logins (login, device) VALUES ('copier2@example.org', 'copier-2');
    INSERT INTO neighbours (network, login, last) VALUES
      ('192.0.2.7', 'copier2@example.org', now()), ('192.0.2.7', 'ann@example.org', now());`)
  const authd = await openAuthd('messages')
  const { sender, smtpd, accepted, end } = await openSession(authd.path, '')
  await accepted('MAIL FROM:<scan@example.org>', 'RCPT TO:<x@far.example>', 'DATA')
  sender.say('bare\nline\r\n.')
  await smtpd.reads('bare\r\nline\r\n.\r\n')
  smtpd.say('250 accepted')
  await sender.reads('250 accepted')
  await accepted('MAIL FROM:<ann@example.org>', 'RCPT TO:<y@far.example>', 'DATA')
  sender.say('another\nline\r\n.')
  await sender.reads(
    '550 5.5.2 the message has a line that does not end with CR LF, or NUL; the sending program must end',
  )
  await end()
  const messages = () => authd.lines().flatMap(line => parseDeviceMessages(line) ?? [])
  await eventually('the messages of the device', () => messages().length > 0)
  expect(messages()).toMatchObject([{ device: 'copier-2', count: 1 }])
})
