import { connect } from 'node:tls'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { dial, PASS, PopupClient, type PopupStack, startPopup } from '../../harness/pop3/popup-stack.ts'
import { describeWith, ROOT } from '../../harness/runner/describe-with.ts'

describeWith([ROOT], 'sslwrap in front of popup', () => {
  let running: PopupStack
  beforeAll(async () => {
    running = await startPopup()
    const { stack } = running
    const at = (port: number) => `127.0.0.1:${port}`
    stack.configure({
      '': { syslog: false, log_level: 'debug' },
      popup: { listen: ['127.0.0.1:0'], proxy_listen: ['127.0.0.1:0'], proxy_trust: ['127.0.0.0/8'] },
      sslwrap: {
        listener: [
          { listen: '127.0.0.1:0', backend: at(stack.port('popup')), preamble: 'ssl' },
          { listen: '127.0.0.1:0', backend: at(stack.port('popup', 0, 'proxy_listen')), preamble: 'proxy-v1' },
          { listen: '127.0.0.1:0', backend: at(stack.port('popup', 0, 'proxy_listen')), preamble: 'proxy-v2' },
        ],
      },
    })
    await stack.start('sslwrap')
  })
  afterAll(() => running.stop())

  test.each([
    [0, 'ssl', '127.0.0.21'],
    [1, 'proxy-v1', '127.0.0.22'],
    [2, 'proxy-v2', '127.0.0.23'],
  ])(
    "listener %i, %s: a whole session; popup has the client's address, and all logs have one id",
    async (index, preamble, ip) => {
      const { stack } = running
      const socket = connect({ socket: dial(stack.port('sslwrap', index), ip), rejectUnauthorized: false })
      const pop = new PopupClient(socket)
      pop.write(`USER ann\r\n${PASS}\r\nSTAT\r\n`)
      await pop.expect(/^\+OK <[0-9a-f]+\.\d+\.\d+@mx\.example\.org>$/)
      await pop.expect(/^\+OK $/)
      await pop.expect(/^\+OK/)
      await pop.expect(/^\+OK 1 /)
      await pop.quit()
      // Version 1 has no field for TLS.
      const { fields } = await stack.waitForLog('popup', {
        event: 'login_accepted',
        ip,
        tls: preamble === 'proxy-v1' ? '0' : '1',
      })
      const id = fields['id'] ?? expect.unreachable()
      if (preamble !== 'proxy-v1') {
        await stack.waitForLog('sslwrap', { event: 'client_connected', ip, id })
        await stack.waitForLog('sslwrap', { event: 'session_ended', ip, id, reason: 'ended' })
      }
    },
  )

  test("a client's own SSL command is refused, and the client's address does not change", async () => {
    const { stack } = running
    const socket = connect({ socket: dial(stack.port('sslwrap'), '127.0.0.24'), rejectUnauthorized: false })
    const pop = new PopupClient(socket)
    pop.write('SSL 192.0.2.66:preamble of this test\r\n')
    await pop.expect(/^\+OK </)
    await pop.expect(/^-ERR authorization first$/)
    await pop.ask('USER ann', /^\+OK/)
    await pop.ask(PASS, /^\+OK/)
    await pop.quit()
    await stack.waitForLog('popup', { event: 'login_accepted', ip: '127.0.0.24' })
  })
})
