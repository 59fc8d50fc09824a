import { connect } from 'node:net'
import { expect } from 'vitest'
import { eventually } from '../harness/eventually.ts'
import { freePort } from '../harness/free-port.ts'
import { Pop3Conversation } from '../harness/pop3/pop3-conversation.ts'
import { descendantsOf, type ProcessStatus } from '../harness/processes/process-status.ts'
import type { ProgramOptions } from '../harness/processes/program.ts'
import { SmtpConversation } from '../harness/smtp/smtp-conversation.ts'
import { Stack, TEST_PASSWORD, type TestSettings } from '../harness/stack.ts'
import { clientAddress } from './crowd.ts'

/** GRANT_WAIT is one second; the margin is for a loaded machine. */
const LOGIN_MS = 6000

/**
 * A whole site under `auth-relay up`, at fixed ports, with a mailbox `ann`; clients come from
 * loopback addresses.
 */
export class Site {
  readonly stack: Stack
  readonly pop3: number
  readonly smtp: number
  #next = 0

  private constructor(stack: Stack, pop3: number, smtp: number) {
    this.stack = stack
    this.pop3 = pop3
    this.smtp = smtp
  }

  /** `settings` gets the port of popup, for a proxy in front of popup. */
  static async start(
    settings: (stack: Stack, pop3: number) => TestSettings,
    options: ProgramOptions = {},
  ): Promise<Site> {
    const stack = new Stack()
    const site = new Site(stack, await freePort(), await freePort())
    stack.account('ann', ['Subject: lunch\n\nAt noon?\n'])
    const { popup, wrap, grants, ...others } = settings(stack, site.pop3)
    stack.configure({
      ...others,
      grants: { grant_loopback: true, exp_time: 3600, ...grants },
      popup: { listen: [`127.0.0.1:${site.pop3}`], ...popup },
      wrap: { listen: [`127.0.0.1:${site.smtp}`], max_connections: 200, ...wrap },
    })
    await stack.start('auth-relay', { ...options, args: ['up', '--config', stack.config] })
    return site
  }

  /** An address that no client had before. */
  newcomer(): string {
    return clientAddress(this.#next++)
  }

  /** Reads the mailbox from an address; returns milliseconds from password to +OK. */
  async login(ip: string, user = 'ann'): Promise<number> {
    const client = Pop3Conversation.over(connect({ host: '127.0.0.1', port: this.pop3, localAddress: ip }))
    try {
      await client.expect(/^\+OK /)
      await client.ask(`USER ${user}`, /^\+OK/)
      const asked = client.say(`PASS ${TEST_PASSWORD}`)
      const { at } = await client.expect(/^\+OK/)
      await client.quit()
      return at - asked
    } finally {
      client.close()
    }
  }

  async askFrom(ip: string, recipient: string): Promise<number> {
    const client = SmtpConversation.over(connect({ host: '127.0.0.1', port: this.smtp, localAddress: ip }))
    try {
      return (await client.askFor(recipient)).code
    } finally {
      client.close()
    }
  }

  mayRelay = async (ip: string): Promise<boolean> => (await this.askFrom(ip, 'somebody@elsewhere.example')) === 250

  processes(words: string): readonly ProcessStatus[] {
    const all = descendantsOf(this.stack.program('auth-relay').pid)
    return all.filter(({ commandLine }) => commandLine.join(' ').includes(words))
  }

  /**
   * Checks a site during an outage of the store and after it. During the outage mail can be read,
   * mail for local domains is accepted, and no client relays without a login. After the outage all
   * logins from before and during the outage count, without a manual step.
   */
  async survives(begin: () => Promise<void>, end: () => Promise<void>): Promise<void> {
    const [before, during, withoutLogin] = [this.newcomer(), this.newcomer(), this.newcomer()]
    await this.login(before)
    await eventually('the login opens the relay', () => this.mayRelay(before), 30_000)
    await begin()
    expect(await this.login(during)).toBeLessThan(LOGIN_MS)
    await this.stack.waitForLog('popup', { event: 'login_accepted', ip: during, grant: 'queued' })
    expect(await this.mayRelay(withoutLogin)).toBe(false)
    expect(await this.askFrom(withoutLogin, 'ann@example.org')).toBe(250)
    await end()
    await eventually('the login during the outage is stored', () => this.mayRelay(during), 90_000)
    expect(await this.mayRelay(before)).toBe(true)
    expect(await this.mayRelay(withoutLogin)).toBe(false)
    expect(await this.login(this.newcomer())).toBeLessThan(LOGIN_MS)
  }

  stop(): Promise<void> {
    return this.stack.stop()
  }
}
