import { connect } from 'node:net'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { type PopupStack, startPopup } from '../harness/pop3/popup-stack.ts'
import { GateDatabase } from '../harness/postgres/gate-database.ts'
import { Conversation } from '../harness/processes/conversation.ts'
import { ENGINE_OF_RUN } from '../harness/processes/engines.ts'
import { describeWith, ROOT } from '../harness/runner/describe-with.ts'
import { SmtpConversation } from '../harness/smtp/smtp-conversation.ts'
import { Stack, TEST_IDS } from '../harness/stack.ts'

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
    afterEach(() => stack.stopPrograms())

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

    describeWith([ROOT], 'of a client with a grant', () => {
      for (const smtpd_user of ['', `${TEST_IDS.smtpd}`])
        for (const front of [false, true])
          test(`${smtpd_user === '' ? 'without a starter' : 'with a starter'}, ${front ? 'with the front' : 'without the front'}`, async () => {
            stack.showLogsOnFailure()
            const wrap = { listen: ['127.0.0.1:0'], smtpd_user, front }
            stack.configure({ '': { log_level: 'debug' }, ...grants.settings, wrap })
            await grants.grant('127.0.0.1', 'ann@example.org')
            await stack.start('wrap')
            await stack.waitForEngine('wrap', 'wrap.engine')
            const smtp = SmtpConversation.over(connect(stack.port('wrap'), '127.0.0.1'))
            await smtp.expectSmtp(/^220 /)
            for (const [line, reply] of [
              ['EHLO c', /^250/],
              ['MAIL FROM:<ann@example.org>', /^250 /],
              ['RCPT TO:<bob@elsewhere.test>', /^250 /],
              ['DATA', /^354 /],
              ['Subject: scan\r\n\r\npage 1\r\n.', /^250 /],
              ['QUIT', /^221 /],
            ] as const) {
              smtp.say(line)
              await smtp.expectSmtp(reply)
            }
            await smtp.expectEnd()
            smtp.close()
            await stack.waitForLog('wrap', { event: 'relay_allowed', ...(front && { front: '1' }) })
            await stack.waitForLog('wrap', { event: 'smtpd_ended', status: '0' })
          })
    })
  })
})
