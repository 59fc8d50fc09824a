import { readdirSync } from 'node:fs'
import { connect } from 'node:net'
import { Pop3Conversation } from '../harness/pop3/pop3-conversation.ts'
import { SmtpConversation } from '../harness/smtp/smtp-conversation.ts'
import { TEST_PASSWORD, type TestAccount } from '../harness/stack.ts'
import { clientAddress } from './crowd.ts'
import type { Random } from './fuzz/random.ts'

export type Ports = { readonly pop3: number; readonly pop3s: number; readonly smtp: number }

const STRANGER = '127.250.0.1'

/**
 * Clients that read, delete and send without pause, and record each login's address and the
 * messages that may be deleted. An unavailable server is not a fault here; a wrong answer is.
 */
export class MailTraffic {
  /** Addresses from which a password was sent. */
  readonly tried = new Set<string>()
  /** Violations that were found while the traffic runs. */
  readonly faults: string[] = []
  readonly counts = { sessions: 0, completed: 0, interrupted: 0, relayed: 0, refused: 0, withoutLogin: 0 }
  readonly #ports: () => Ports
  readonly #account: TestAccount
  readonly #random: Random
  readonly #unclaimed: string[]
  /** Messages of a session that sent QUIT. The reply to QUIT means that they are removed. */
  readonly #quitSent = new Set<string>()
  readonly #quitAnswered = new Set<string>()
  readonly #all: readonly string[]
  #next = 0
  #stopped = false
  #loops: readonly Promise<void>[] = []

  constructor(account: TestAccount, ports: () => Ports, random: Random) {
    this.#account = account
    this.#ports = ports
    this.#random = random
    this.#all = readdirSync(`${account.maildir}/new`)
    this.#unclaimed = [...this.#all]
  }

  start(clients: number): void {
    const forever = async (once: () => Promise<void>): Promise<void> => {
      while (!this.#stopped) {
        await once().catch(() => {
          this.counts.interrupted += 1
        })
        // Pauses, so that an unavailable server is not queried in a tight loop.
        await new Promise(resolve => setTimeout(resolve, 5))
      }
    }
    this.#loops = [
      ...Array.from({ length: clients }, () => forever(() => this.#session())),
      forever(() => this.#clientWithoutLogin()),
    ]
  }

  async stop(): Promise<void> {
    this.#stopped = true
    await Promise.all(this.#loops)
  }

  /** Compares the records with the maildrop. */
  audit(): void {
    const there = new Set(
      ['new', 'cur'].flatMap(folder => readdirSync(`${this.#account.maildir}/${folder}`)).map(uniqueId),
    )
    for (const name of this.#all) {
      const id = uniqueId(name)
      if (there.has(id) && this.#quitAnswered.has(id)) this.faults.push(`${id} came back after QUIT was answered`)
      if (!there.has(id) && !this.#quitSent.has(id)) this.faults.push(`${id} is missing without a QUIT`)
    }
  }

  get deleted(): number {
    return this.#quitAnswered.size
  }

  /**
   * One client from a separate address: reads a message, marks it, and sends QUIT or disconnects;
   * then it tries to relay.
   */
  async #session(): Promise<void> {
    this.counts.sessions += 1
    const ip = clientAddress(this.#next++)
    const [tls, endsWell] = [this.#random.oneIn(3), !this.#random.oneIn(3)]
    const { pop3, pop3s } = this.#ports()
    const socket = connect({ host: '127.0.0.1', port: tls ? pop3s : pop3, localAddress: ip })
    const client = Pop3Conversation.over(socket, { tls })
    try {
      await client.expect(/^\+OK /)
      await client.ask(`USER ${this.#account.login}`, /^\+OK/)
      this.tried.add(ip)
      await client.ask(`PASS ${TEST_PASSWORD}`, /^\+OK/)
      const id = uniqueId(this.#unclaimed.pop() ?? '')
      if (id !== '') await this.#read(client, id)
      if (endsWell) {
        if (id !== '') this.#quitSent.add(id)
        await client.ask('QUIT', /^\+OK/)
        if (id !== '') this.#quitAnswered.add(id)
      }
    } finally {
      client.close()
    }
    await this.#mayRelay(ip)
    this.counts.completed += 1
  }

  async #read(client: Pop3Conversation, id: string): Promise<void> {
    await client.ask('UIDL', /^\+OK/)
    const number = (await client.expectLinesToDot()).find(line => line.endsWith(` ${id}`))?.split(' ')[0]
    if (number === undefined) throw new Error(`${id} is not listed`)
    await client.ask(`RETR ${number}`, /^\+OK/)
    const lines = await client.expectLinesToDot()
    if (!lines.includes('the end')) this.faults.push(`${id} came incomplete, and as if it were whole`)
    await client.ask(`DELE ${number}`, /^\+OK/)
  }

  /**
   * A client after its login. A refusal is not a fault, because the database may be unavailable.
   */
  async #mayRelay(ip: string): Promise<void> {
    const code = await this.#askFrom(ip)
    if (code === 250) this.counts.relayed += 1
    else this.counts.refused += 1
  }

  async #clientWithoutLogin(): Promise<void> {
    const code = await this.#askFrom(STRANGER)
    this.counts.withoutLogin += 1
    if (code === 250) this.faults.push('the relay was open for an address without a login')
  }

  async #askFrom(ip: string): Promise<number> {
    const socket = connect({ host: '127.0.0.1', port: this.#ports().smtp, localAddress: ip })
    const client = SmtpConversation.over(socket)
    try {
      return (await client.askFor('somebody@elsewhere.example')).code
    } finally {
      client.close()
    }
  }
}

/** The name without the flags, as UIDL shows it. */
const uniqueId = (name: string): string => name.replace(/:.*$/, '')
