import { readdirSync, readFileSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { AuthdDouble } from '../authd/authd-double.ts'
import type { ReceivedLine } from '../processes/conversation.ts'
import type { ProgramOptions } from '../processes/program.ts'
import { Stack, TEST_PASSWORD, type TestAccount, type TestSettings } from '../stack.ts'
import { Pop3Conversation } from './pop3-conversation.ts'

export const MESSAGE = 'Subject: lunch\n\nAt noon?\n'
export const PASS = `PASS ${TEST_PASSWORD}`

/** A dialogue with popup. */
export class PopupClient extends Pop3Conversation {
  constructor(stream: Duplex) {
    super('popup', stream)
  }

  override login(user: string, password = TEST_PASSWORD): Promise<ReceivedLine> {
    return super.login(user, password)
  }
}

/** A connection to a port of this host, from one of its loopback addresses. */
export const dial = (port: number, from = '127.0.0.1'): Socket =>
  connect({ host: '127.0.0.1', port, localAddress: from, allowHalfOpen: true })

/**
 * popup with a double of authd, and two mailboxes of different owners: `ann` has one message, `bob`
 * two.
 */
export type PopupStack = {
  readonly stack: Stack
  readonly ann: TestAccount
  readonly bob: TestAccount
  authd: AuthdDouble
  /** A new connection; `closeClients` closes it at the latest. */
  client(from?: string): PopupClient
  /** As `connect`, to the address at which a PROXY header comes first. */
  proxied(): PopupClient
  closeClients(): void
  stop(): Promise<void>
}

/**
 * Makes the mailboxes and settings, then starts the double of authd and popup. `prepare` may add
 * files to the stack's directory.
 */
export async function startPopup(
  popup: TestSettings[string] | ((stack: Stack) => TestSettings[string]) = {},
  others: TestSettings = {},
  options: ProgramOptions = {},
): Promise<PopupStack> {
  const stack = new Stack()
  const ann = stack.account('ann', [MESSAGE])
  const bob = stack.account('bob', [MESSAGE, MESSAGE])
  stack.configure({
    '': { syslog: false, log_level: 'debug' },
    ...others,
    popup: {
      listen: ['127.0.0.1:0'],
      proxy_listen: ['127.0.0.1:0'],
      proxy_trust: ['127.0.0.0/8'],
      ...(typeof popup === 'function' ? popup(stack) : popup),
    },
  })
  const authd = await AuthdDouble.listen(`${stack.directory}/run/authd.sock`)
  await stack.start('popup', options)
  if (others['']?.['log_level'] === undefined) await stack.waitForEngine('popup', 'popup.engine')
  const clients: PopupClient[] = []
  const opened = (socket: Socket): PopupClient => {
    const client = new PopupClient(socket)
    clients.push(client)
    return client
  }
  const running: PopupStack = {
    stack,
    ann,
    bob,
    authd,
    client: from => opened(dial(stack.port('popup'), from)),
    proxied: () => opened(dial(stack.port('popup', 0, 'proxy_listen'))),
    closeClients: () => {
      for (const client of clients.splice(0)) client.close()
    },
    stop: async () => {
      running.closeClients()
      await stack.stop()
      await running.authd.stop()
    },
  }
  return running
}

/** Pids of the children of a process with this word on their command line. */
export const childrenOf = (pid: number, word: string): number[] =>
  readdirSync('/proc')
    .filter(name => /^\d+$/.test(name))
    .map(Number)
    .filter(child => {
      try {
        const parent = /^PPid:\t(\d+)$/m.exec(readFileSync(`/proc/${child}/status`, 'utf8'))?.[1]
        return Number(parent) === pid && readFileSync(`/proc/${child}/cmdline`, 'utf8').split('\0').includes(word)
      } catch {
        return false // the process has just ended
      }
    })
