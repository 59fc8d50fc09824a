import { once } from 'node:events'
import { createServer } from 'node:net'
import { afterAll, beforeAll, expect, inject, onTestFinished, test } from 'vitest'
import { parseSettings } from '../../src/settings/settings.ts'
import { nodeEngine } from '../../src/sockets/node-engine.ts'
import { OwnedDescriptor } from '../../src/sockets/owned-descriptor.ts'
import { parseRelayTally } from '../../src/wire/usage-event.ts'
import { ClientFaultTimes } from '../../src/wrap/front/client-faults.ts'
import { GateSetup } from '../../src/wrap/gate/gate-setup.ts'
import { PolicyRates } from '../../src/wrap/services/policy-rates.ts'
import { ip } from '../harness/addresses.ts'
import { eventually } from '../harness/eventually.ts'
import { temporaryDirectory } from '../harness/temporary-directory.ts'
import { createTestDatabase, type TestDatabase } from '../harness/test-database.ts'

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

test('authd receives the refused commands and the accepted messages of a session behind the front', async () => {
  let reports = ''
  const authd = createServer(socket =>
    socket.on('data', piece => {
      reports += String(piece)
    }),
  )
  authd.listen(`${directory.path}/usage.sock`)
  await once(authd, 'listening')
  onTestFinished(() => void authd.close())
  const { host, port } = inject('postgres')
  const { settings } = parseSettings(
    `log_level = "error"
[database]
dbhost = "${host}"
dbport = ${port}
dbname = "${database.name}"
wrap_dbpass = "authwrap"
[authd]
usage_socket = "${directory.path}/usage.sock"
[wrap]
front = true
sender_binding = "refuse"
smtpd = ["/bin/cat"]
`,
    'test.toml',
  )
  const gate = new GateSetup(settings, { PATH: '/bin' })
  onTestFinished(() => gate.close())
  const { front } = gate.gateOptions(nodeEngine, new PolicyRates(settings.wrap, () => 0), new ClientFaultTimes(() => 0))
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
  sender.say('MAIL FROM:<ceo@example.org>')
  await sender.reads('550 5.7.1 sender address does not belong')
  for (const [n, line] of ['MAIL FROM:<ann@example.org>', 'RCPT TO:<x@far.example>', 'DATA'].entries()) {
    sender.say(line)
    await smtpd.reads(line)
    smtpd.say(`${line === 'DATA' ? 354 : 250} answer ${n}`)
    await sender.reads(`answer ${n}`)
  }
  sender.say('text\r\n.')
  await smtpd.reads('text\r\n.\r\n')
  smtpd.say('250 accepted')
  await sender.reads('250 accepted')
  const counted = () => {
    const tallies = reports.split('\n').flatMap(line => parseRelayTally(line) ?? [])
    const sum = (verdict: 'relayed' | 'refused' | 'undecided') =>
      tallies.reduce((count, { service, counts }) => count + (service === 'front' ? counts[verdict] : 0), 0)
    return { relayed: sum('relayed'), refused: sum('refused'), undecided: sum('undecided') }
  }
  await eventually('the reports', () => counted().relayed > 0)
  expect(counted()).toEqual({ relayed: 1, refused: 1, undecided: 0 })
  opened?.endSession('end', '421 4.3.2 end')
  await opened?.closed
})
