import { createServer, type Server, type Socket } from 'node:net'
import type { CustomerNetworks } from '../wire/customer-networks.ts'
import type { IpAddress } from '../wire/ip-address.ts'
import { clientOf, formatPolicyAnswer, PolicyReader, type PolicyRequest } from '../wire/policy-request.ts'
import { type Decision, logAnswer } from './decision.ts'
import type { DoorOptions } from './door-options.ts'
import type { PolicyRates } from './policy-rates.ts'
import { senderBelongsTo } from './sender-binding.ts'

export type PolicyDoorOptions = DoorOptions & {
  /** Must the envelope sender belong to the login that opened the address? */
  readonly senderBinding: 'off' | 'warn' | 'refuse'
  readonly senderDomains: readonly string[]
  readonly rates: PolicyRates
  /** Whose mail counts together in the rates per address. */
  readonly customers: CustomerNetworks
}

/** Says nothing about the mail: the restrictions that follow in main.cf decide (Postfix access(5)). */
const NO_OPINION = 'DUNNO'
/** Questions in work on one connection before it is read no further. */
const MAX_OPEN = 1_000

/**
 * Postfix's policy service (SMTPD_POLICY_README), for `check_policy_service` before `reject_unauth_destination`: OK for a granted client, DUNNO for all else.
 * `options` is asked for each question: settings may change.
 */
export function policyDoor(options: () => PolicyDoorOptions): Server {
  return createServer(socket => new PolicyConnection(socket, options))
}

class PolicyConnection {
  readonly #socket: Socket
  readonly #options: () => PolicyDoorOptions
  readonly #reader = new PolicyReader()
  /** Answers go out in the order of their questions. */
  #last: Promise<void> = Promise.resolve()
  #open = 0
  #ready = ''
  #ended = false
  /** Message that recipients were counted for last: Postfix keeps `instance` the same over one message. */
  #instance = ''

  constructor(socket: Socket, options: () => PolicyDoorOptions) {
    this.#socket = socket
    this.#options = options
    socket.setEncoding('latin1')
    socket.on('error', () => socket.destroy()) // Postfix closed its end; it asks again on a new connection
    socket.on('data', chunk => this.#take(String(chunk)))
    socket.on('end', () => {
      this.#ended = true
    })
  }

  #take(chunk: string): void {
    try {
      for (const request of this.#reader.push(chunk)) this.#enqueue(request)
    } catch (error) {
      this.#options().log.warn('policy_fault', { error: error instanceof Error ? error : String(error) })
      this.#socket.destroy()
    }
  }

  #enqueue(request: PolicyRequest): void {
    this.#open += 1
    if (this.#open >= MAX_OPEN) this.#socket.pause()
    const decision = this.#options().decide(clientOf(request))
    this.#last = this.#last
      .then(async () => this.#answer(this.#actionFor(request, await decision)))
      // A fault of ours must not take Postfix's mail down: it goes on as for any stranger.
      .catch((error: unknown) => {
        this.#options().log.error('error', { error: error instanceof Error ? error : String(error) })
        this.#answer(NO_OPINION)
      })
  }

  #answer(action: string): void {
    this.#open -= 1
    this.#ready += formatPolicyAnswer(action)
    if (this.#open === 0 || this.#ready.length > 16_384) {
      this.#socket.write(this.#ready, 'latin1')
      this.#ready = ''
    }
    if (this.#socket.isPaused() && this.#open < MAX_OPEN / 2 && !this.#ended) this.#socket.resume()
  }

  #actionFor(request: PolicyRequest, decision: Decision): string {
    const { log, onDecision } = this.#options()
    const ip = clientOf(request)
    const fields = {
      ip,
      door: 'policy',
      sender: request.get('sender'),
      recipient: request.get('recipient'),
      queue: request.get('queue_id') || undefined,
    }
    if (!decision.relay || ip === undefined) {
      logAnswer(log, decision, fields)
      onDecision(ip, decision)
      return NO_OPINION
    }
    const refusal = this.#refusal(request, ip, decision.login)
    if (refusal !== undefined) {
      log.warn('refuse', { ...fields, user: decision.login, reason: refusal.reason })
      onDecision(ip, { relay: false, reason: refusal.reason })
      return refusal.action
    }
    logAnswer(log, decision, fields)
    onDecision(ip, decision)
    return 'OK'
  }

  #refusal(
    request: PolicyRequest,
    ip: IpAddress,
    login: string | undefined,
  ): { readonly reason: string; readonly action: string } | undefined {
    const { senderBinding, senderDomains, log } = this.#options()
    const sender = request.get('sender') ?? ''
    if (senderBinding !== 'off' && login !== undefined && !senderBelongsTo(login, sender, senderDomains)) {
      if (senderBinding === 'refuse')
        return { reason: 'sender', action: '550 5.7.1 sender address does not belong to the mailbox opened from here' }
      log.warn('foreign_sender', { ip, user: login, sender })
    }
    return this.#overRate(request, ip, login)
  }

  /** Counts a recipient at each RCPT and a message at its first. */
  #overRate(
    request: PolicyRequest,
    ip: IpAddress,
    login: string | undefined,
  ): { readonly reason: string; readonly action: string } | undefined {
    if ((request.get('protocol_state') ?? 'RCPT') !== 'RCPT') return undefined
    const instance = request.get('instance') ?? ''
    const isNewMessage = instance === '' || instance !== this.#instance
    const { rates, customers } = this.#options()
    const { messagesPerLogin, messagesPerAddress, recipientsPerLogin, recipientsPerAddress } = rates
    const customer = customers.keyOf(ip)
    const counted = [
      ...(isNewMessage ? [{ rate: messagesPerAddress, key: customer, reason: 'messages_per_address' }] : []),
      { rate: recipientsPerAddress, key: customer, reason: 'recipients_per_address' },
      ...(isNewMessage && login !== undefined
        ? [{ rate: messagesPerLogin, key: login, reason: 'messages_per_login' }]
        : []),
      ...(login === undefined ? [] : [{ rate: recipientsPerLogin, key: login, reason: 'recipients_per_login' }]),
    ]
    const over = counted.find(({ rate, key }) => !rate.allows(key))
    if (over !== undefined)
      return { reason: over.reason, action: '450 4.7.1 too much mail within an hour, try again later' }
    for (const { rate, key } of counted) rate.add(key)
    this.#instance = instance
    return undefined
  }
}
