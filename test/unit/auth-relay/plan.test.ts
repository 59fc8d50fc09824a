import { expect, test } from 'vitest'
import { partsInUse, plannedSockets } from '../../../src/auth-relay/stack/plan.ts'
import { formatSocketAddress } from '../../../src/process/socket-address.ts'
import { parseSettings } from '../../../src/settings/settings.ts'

test('the planned sockets are those of every setting that names an address', () => {
  const { settings } = parseSettings(
    `
[popup]
listen = ["*:110", "unix:/run/popup.sock"]
tls_listen = ["127.0.0.1:1995"]
[authd]
socket = "/run/authd.sock"
usage_socket = ""
metrics_listen = "127.0.0.1:9100"
syslog_listen = ["127.0.0.1:6514"]
[wrap]
listen = ["*:25"]
policy_listen = ["127.0.0.1:10040"]
query_listen = ["unix:/run/query.sock"]
`,
    'x.toml',
  )
  const planned = plannedSockets(settings, { ...partsInUse(settings), sslwrap: true }).map(
    ({ setting, program, address }) => `${program} ${setting} ${formatSocketAddress(address)}`,
  )
  expect(planned.toSorted()).toEqual([
    'authd authd.metrics_listen 127.0.0.1:9100',
    'authd authd.socket unix:/run/authd.sock',
    'authd authd.syslog_listen 127.0.0.1:6514',
    'popup popup.listen [::]:110',
    'popup popup.listen unix:/run/popup.sock',
    'popup popup.tls_listen 127.0.0.1:1995',
    'sslwrap sslwrap.listener [::]:995',
    'wrap wrap.listen [::]:25',
    'wrap wrap.policy_listen 127.0.0.1:10040',
    'wrap wrap.query_listen unix:/run/query.sock',
  ])
})
