import { once } from 'node:events'
import { createServer } from 'node:net'
import { afterAll, expect, onTestFinished, test } from 'vitest'
import { parseSettings } from '../../../src/settings/settings.ts'
import { nodeEngine } from '../../../src/sockets/node-engine.ts'
import { OwnedDescriptor } from '../../../src/sockets/owned-descriptor.ts'
import { parseRelayTally } from '../../../src/wire/usage-event.ts'
import { ClientFaultTimes } from '../../../src/wrap/front/client-faults.ts'
import { GateSetup } from '../../../src/wrap/gate/gate-setup.ts'
import { MailCounts } from '../../../src/wrap/mail-counts.ts'
import { ip } from '../../harness/addresses.ts'
import { eventually } from '../../harness/eventually.ts'
import { temporaryDirectory } from '../../harness/temporary-directory.ts'

const directory = temporaryDirectory()
afterAll(() => directory.remove())

const SETTINGS = `
log_level = "error"
[database]
dbhost = "${directory.path}"
[authd]
usage_socket = "${directory.path}/usage.sock"
[wrap]
front = true
wrap_timeout = "1s"
smtpd = ["/bin/cat"]
`

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
  return { say: (line: string) => socket.write(Buffer.from(`${line}\r\n`)), received: () => received }
}

test('MAIL without an answer of the database counts for authd as an undecided decision of the front', async () => {
  let reports = ''
  const authd = createServer(socket =>
    socket.on('data', piece => {
      reports += String(piece)
    }),
  )
  authd.listen(`${directory.path}/usage.sock`)
  await once(authd, 'listening')
  onTestFinished(() => void authd.close())
  const { settings } = parseSettings(SETTINGS, 'test.toml')
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
  await eventually('the banner', () => sender.received().startsWith('220'))
  sender.say('MAIL FROM:<ann@example.org>')
  await eventually('the reply to MAIL', () => sender.received().includes('\n451 4.3.0'))
  await eventually('the report', () => reports.includes('service=front'))
  expect(reports.trim().split('\n').map(parseRelayTally)).toMatchObject([
    { service: 'front', counts: { relayed: 0, refused: 0, undecided: 1, never: 0 }, recent: [] },
  ])
  opened?.endSession('stopped', '421 4.3.2 end')
  await opened?.closed
})
