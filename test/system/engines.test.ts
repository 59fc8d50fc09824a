import { connect } from 'node:net'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { Conversation } from '../harness/conversation.ts'
import { ENGINE_OF_RUN } from '../harness/engines.ts'
import { GateDatabase } from '../harness/gate-database.ts'
import { type PopupStack, startPopup } from '../harness/popup-stack.ts'
import { Stack } from '../harness/stack.ts'

/**
 * The files of OVER_BOTH_ENGINES (vitest.config.ts) are run twice. This test shows that the second
 * run uses the other engine.
 */
describe(`engine ${ENGINE_OF_RUN}`, () => {
  describe('carries POP3', () => {
    let running: PopupStack

    beforeAll(async () => {
      running = await startPopup({}, { pop3d: { worker_idle: 600 } })
    })
    beforeEach(() => running.stack.showLogsOnFailure())
    afterAll(() => running.stop())

    test('before the login and after it', async () => {
      const client = running.client()
      await client.login('bob')
      await client.ask('STAT', /^\+OK 2 /)
      await running.stack.waitForEngine('popup', 'popup.engine')
      await running.stack.waitForEngine('popup', 'pop3d.engine')
      // With engine node the login process keeps the connection and relays; with epoll it hands the
      // connection over.
      const passed = running.stack.log('popup').some(({ fields }) => fields['event'] === 'client_handed_off')
      expect(passed).toBe(ENGINE_OF_RUN === 'epoll')
      await client.quit()
    })
  })

  describe('carries SMTP', () => {
    let stack: Stack
    let grants: GateDatabase

    beforeAll(async () => {
      stack = new Stack()
      grants = await GateDatabase.create()
    })
    afterAll(async () => {
      await stack.stop()
      await grants.remove()
    })

    test('to an smtpd', async () => {
      stack.showLogsOnFailure()
      stack.configure({ '': { log_level: 'debug' }, ...grants.settings, wrap: { listen: ['127.0.0.1:0'] } })
      await stack.start('wrap')
      await stack.waitForEngine('wrap', 'wrap.engine')
      const socket = connect(stack.port('wrap'), '127.0.0.1')
      const client = new Conversation('client', socket)
      await client.expect(/^220 /)
      await client.ask('QUIT', /^221 /)
      client.close()
    })
  })
})
