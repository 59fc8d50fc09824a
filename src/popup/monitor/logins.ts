/**
 * The requests of login processes: the steps of each login in the monitor, its time limits, and its
 * answers.
 */
import { randomBytes } from 'node:crypto'
import { messageOf, stackOf } from '../../base/errors.ts'
import { KeyedHash } from '../../base/keyed-hash.ts'
import type { Log } from '../../base/log.ts'
import type { LoginFailure } from '../../pop3/authorization.ts'
import type { FailReason } from '../../syslog/login-line.ts'
import type { CustomerNetworks } from '../../wire/customer-networks.ts'
import { loginText } from '../../wire/login-event.ts'
import type { FromLogin, LoginAttempt, UpstreamOutcome, VerifyRequest } from '../../wire/workers/login-process.ts'
import { type Applicant, CheckCancelled, type CheckQueue, sharingNetworks } from '../checkers/check-queue.ts'
import type { Checker } from '../checkers/checker.ts'
import { ClientDisconnect } from '../client-disconnect.ts'
import type { Announcer, Attempt } from './announcer.ts'
import type { ChainRunner } from './chain-runner.ts'
import type { FailureDelays, LoginIntervals } from './login-delays.ts'
import type { LoginProcess } from './login-processes.ts'
import type { CountedLogin, MaildropWorkers } from './maildrop-workers.ts'

/** Requests in progress of one login process: above the number of its connections, but limited. */
const MAX_PENDING = 100_000
/** Characters of names and secrets in the requests that one login process may have under way. */
const MAX_PENDING_OCTETS = 8_388_608

export type LoginsParts = {
  /**
   * The authenticator: popup's checker, a chained program, or a server that the login process
   * queries. `checks` limits the queries under way.
   */
  readonly authenticator:
    | { readonly kind: 'checker'; readonly checker: Checker; readonly workers: MaildropWorkers }
    | { readonly kind: 'chain'; readonly chains: ChainRunner }
    | { readonly kind: 'upstream'; readonly checks: () => CheckQueue }
  readonly delays: FailureDelays
  /** Decides which addresses belong to one customer. */
  readonly customers: () => CustomerNetworks
  readonly intervals: LoginIntervals
  readonly announcer: Announcer
  /** Milliseconds that a check may take. */
  readonly checkTimeout: () => number
  readonly log: Log
}

type Pending = {
  readonly attempt: Attempt
  /** Characters of name and secret. */
  readonly octets: number
  /** Fingerprint of login and secret together, for failures. */
  readonly proof: () => string
  readonly disconnect: ClientDisconnect
  outcome?: (outcome: UpstreamOutcome) => void
}

/** Handles the requests of login processes. Attempts are independent; none waits for another. */
export class Logins {
  readonly #parts: LoginsParts
  readonly #pending = new Map<LoginProcess, PendingRequests>()
  /** Fingerprints of wrong passwords are of use in this process alone. */
  readonly #proofs = new KeyedHash(randomBytes(32))

  constructor(parts: LoginsParts) {
    this.#parts = parts
  }

  /** A message of a login process, already well-formed. */
  handle(loginProcess: LoginProcess, message: FromLogin): void {
    switch (message.type) {
      case 'verify':
        this.#begin(loginProcess, message, message.secret, this.#proofOf(message), pending =>
          this.#verify(loginProcess, message, pending),
        )
        return
      case 'attempt':
        this.#begin(
          loginProcess,
          message,
          '',
          () => message.proof,
          pending => this.#throughUpstream(loginProcess, message, pending),
        )
        return
      case 'outcome':
        this.#pending.get(loginProcess)?.requests.get(message.n)?.outcome?.(message.outcome)
        return
      case 'cancel':
        this.#pending.get(loginProcess)?.requests.get(message.n)?.disconnect.signal()
        return
      case 'preambleRefused':
        this.#parts.announcer.preambleFailure(message.ip, message.reason)
        return
      case 'ready':
        return
    }
  }

  /** The login process has ended, and all its requests with it. */
  processEnded(loginProcess: LoginProcess): void {
    for (const { disconnect } of this.#pending.get(loginProcess)?.requests.values() ?? []) disconnect.signal()
    this.#pending.delete(loginProcess)
  }

  #proofOf =
    ({ login, secret }: VerifyRequest) =>
    (): string =>
      this.#proofs.hex(`${login}\0${secret}`)

  #begin(
    loginProcess: LoginProcess,
    { n, id, login, method, ip, tls }: LoginAttempt,
    secret: string,
    proof: () => string,
    run: (pending: Pending) => Promise<void>,
  ): void {
    const table: PendingRequests = this.#pending.get(loginProcess) ?? { requests: new Map(), octets: 0 }
    this.#pending.set(loginProcess, table)
    const octets = login.length + secret.length
    const isFull = table.requests.size >= MAX_PENDING || table.octets + octets > MAX_PENDING_OCTETS
    if (isFull || table.requests.has(n)) {
      loginProcess.send({ type: 'failed', n, failure: 'temporary' })
      return
    }
    const attempt: Attempt = { id, ip, user: loginText(login), method, tls }
    const pending: Pending = { attempt, octets, proof, disconnect: new ClientDisconnect() }
    table.requests.set(n, pending)
    table.octets += octets
    run(pending)
      .catch((error: unknown) => {
        this.#parts.log.error('login_check_failed', { id, reason: stackOf(error) })
        loginProcess.send({ type: 'failed', n, failure: 'temporary' })
      })
      .finally(() => {
        table.requests.delete(n)
        table.octets -= octets
      })
  }

  async #verify(loginProcess: LoginProcess, request: VerifyRequest, pending: Pending): Promise<void> {
    const { authenticator } = this.#parts
    if (authenticator.kind === 'upstream')
      throw new Error('a login process requested a check that is not the monitor’s')
    if (!(await this.#waitForDelay(pending))) return
    if (authenticator.kind === 'chain') await this.#throughChain(authenticator.chains, loginProcess, request, pending)
    else await this.#check(authenticator, loginProcess, request, pending)
  }

  async #check(
    { checker, workers }: Extract<LoginsParts['authenticator'], { kind: 'checker' }>,
    loginProcess: LoginProcess,
    request: VerifyRequest,
    pending: Pending,
  ): Promise<void> {
    const { n } = request
    const verdict = await this.#inTime(pending, () =>
      checker.check({ ...request, applicant: this.#applicant(pending) }),
    )
    if (verdict === 'cancelled') return
    if (verdict.kind !== 'yes') {
      this.#refuse(loginProcess, n, pending, FAILURES[verdict.kind], verdict.detail)
      return
    }
    const { maildrop } = verdict
    const refusal = workers.refusalOf(maildrop)
    if (refusal !== undefined) {
      // This must look like a wrong password. Otherwise it would reveal passwords of accounts that
      // have no session here.
      this.#refuse(loginProcess, n, pending, { failure: 'credentials', reason: 'uid' }, refusal)
      return
    }
    const counted = this.#accept(loginProcess, n, pending)
    if (counted === undefined) return
    const { attempt, disconnect } = pending
    const [open] = await Promise.all([workers.open(maildrop, attempt, counted), this.#parts.announcer.login(attempt)])
    if (disconnect.hasDisconnected) {
      counted.sessionRefused()
      return
    }
    loginProcess.send({ type: 'open', n, ...open })
  }

  /** The chained program's first +OK, which the login process reports, is the proof. */
  async #throughChain(
    chains: ChainRunner,
    loginProcess: LoginProcess,
    request: VerifyRequest,
    pending: Pending,
  ): Promise<void> {
    const { n } = request
    // The running program has a separate time limit.
    const chain = await this.#inTime(pending, () => chains.start(loginProcess.index, request, this.#applicant(pending)))
    if (chain === 'cancelled') return
    if ('kind' in chain) {
      this.#refuse(loginProcess, n, pending, FAILURES[chain.kind], chain.detail)
      return
    }
    const outcome = new Promise<'accepted'>(resolve => {
      pending.outcome = result => {
        if (result === 'yes') resolve('accepted')
      }
    })
    const first = await Promise.race([outcome, chain.ended])
    if (first !== 'accepted') {
      this.#refuse(loginProcess, n, pending, FAILURES[first.kind], first.detail)
      return
    }
    chain.accepted()
    const counted = this.#accept(loginProcess, n, pending)
    if (counted === undefined) {
      chain.stop()
      return
    }
    counted.sessionBegan()
    await this.#parts.announcer.login(pending.attempt)
    loginProcess.send({ type: 'announced', n })
    void chain.ended.then(end => {
      if (end.kind !== 'crash') return
      const { id, ip, user } = pending.attempt
      this.#parts.log.warn('login_aborted', { id, ip, user, reason: end.detail })
    })
  }

  async #throughUpstream(loginProcess: LoginProcess, attempt: LoginAttempt, pending: Pending): Promise<void> {
    const { n } = attempt
    const { authenticator } = this.#parts
    if (authenticator.kind !== 'upstream')
      throw new Error('a login process announced a login that the monitor must check')
    if (!(await this.#waitForDelay(pending))) return
    const result = await this.#inTime(pending, () =>
      authenticator.checks().run(this.#applicant(pending), () => this.#outcomeUpstream(loginProcess, n, pending)),
    )
    // The requests of a login process that has ended are no failures of its clients.
    if (result === 'cancelled' || !this.#pending.has(loginProcess)) return
    if (typeof result === 'object') {
      this.#refuse(loginProcess, n, pending, FAILURES.temporary, result.detail)
      return
    }
    if (result !== 'yes') {
      this.#refuse(loginProcess, n, pending, FAILURES[result], UPSTREAM_DETAILS[result])
      return
    }
    const counted = this.#accept(loginProcess, n, pending)
    if (counted === undefined) return
    counted.sessionBegan()
    await this.#parts.announcer.login(pending.attempt)
    loginProcess.send({ type: 'announced', n })
  }

  /** Starts the query of the server behind. Fulfilled with the outcome that the process reports. */
  #outcomeUpstream(loginProcess: LoginProcess, n: number, pending: Pending): Promise<UpstreamOutcome | 'disconnected'> {
    return new Promise(resolve => {
      pending.outcome = resolve
      pending.disconnect.listen(() => resolve('disconnected'))
      loginProcess.send({ type: 'proceed', n })
    })
  }

  /** Waits for the delay of earlier failures; false if the client disconnects meanwhile. */
  async #waitForDelay({ attempt, disconnect }: Pending): Promise<boolean> {
    const delay = this.#parts.delays.delayFor(attempt.ip, attempt.user)
    if (delay === 0) return !disconnect.hasDisconnected
    return new Promise(resolve => {
      const timer = setTimeout(() => resolve(true), delay)
      disconnect.listen(() => {
        clearTimeout(timer)
        resolve(false)
      })
    })
  }

  #applicant({ attempt: { ip, user }, disconnect }: Pending): Applicant {
    const { delays, customers } = this.#parts
    return { networks: sharingNetworks(customers().networkOf(ip)), isKnown: delays.isKnown(ip, user), disconnect }
  }

  /**
   * Returns the answer of a check. After its time limit, or if it fails, the answer is `temporary`;
   * the check then leaves its queue as if the client had disconnected. `cancelled`: the client
   * disconnected while the check waited.
   */
  async #inTime<Answer>(
    { disconnect }: Pending,
    check: () => Promise<Answer>,
  ): Promise<Answer | { readonly kind: 'temporary'; readonly detail: string } | 'cancelled'> {
    const late = Promise.withResolvers<{ kind: 'temporary'; detail: string }>()
    const timer = setTimeout(() => {
      late.resolve({ kind: 'temporary', detail: 'the checker did not answer in time' })
      disconnect.signal()
    }, this.#parts.checkTimeout())
    try {
      return await Promise.race([late.promise, check()])
    } catch (error) {
      if (error instanceof CheckCancelled) return 'cancelled'
      return { kind: 'temporary', detail: messageOf(error) }
    } finally {
      clearTimeout(timer)
    }
  }

  /** The password is right. Undefined if the login is refused because of its interval. */
  #accept(loginProcess: LoginProcess, n: number, pending: Pending): CountedLogin | undefined {
    const { ip, user } = pending.attempt
    this.#parts.delays.succeeded(ip, user)
    const counted = this.#parts.intervals.take(user)
    if (counted === undefined) this.#refuse(loginProcess, n, pending, FAILURES.loginDelay, undefined)
    return counted
  }

  #refuse(
    loginProcess: LoginProcess,
    n: number,
    { attempt, proof }: Pending,
    { failure, reason }: Refusal,
    detail: string | undefined,
  ): void {
    if (failure === 'credentials') this.#parts.delays.failed(attempt.ip, attempt.user, proof())
    this.#parts.announcer.failure(attempt, reason, detail)
    loginProcess.send({ type: 'failed', n, failure })
  }
}

/**
 * The pending requests of one login process, with the characters of all their names and secrets.
 */
type PendingRequests = { readonly requests: Map<number, Pending>; octets: number }

const SERVER_REFUSED = 'the server behind refused the login'
const UPSTREAM_DETAILS: Readonly<Record<Exclude<UpstreamOutcome, 'yes'> | 'disconnected', string>> = {
  no: SERVER_REFUSED,
  inUse: SERVER_REFUSED,
  loginDelay: SERVER_REFUSED,
  temporary: 'the server behind gave no answer about the login',
  disconnected: 'the client disconnected before the answer of the server behind',
}

type Refusal = { readonly failure: LoginFailure; readonly reason: FailReason | 'logindelay' | 'uid' }

const FAILURES: Readonly<
  Record<'no' | 'temporary' | 'crash' | 'tooLong' | 'badauth' | 'inUse' | 'loginDelay' | 'disconnected', Refusal>
> = {
  // A server often delays its answer to a wrong password. A client that disconnects first has
  // learned that the password is wrong, so this must count.
  disconnected: { failure: 'credentials', reason: 'temp' },
  inUse: { failure: 'inUse', reason: 'temp' },
  loginDelay: { failure: 'loginDelay', reason: 'logindelay' },
  no: { failure: 'credentials', reason: 'badauth' },
  badauth: { failure: 'credentials', reason: 'badauth' },
  tooLong: { failure: 'credentials', reason: 'toolong' },
  temporary: { failure: 'temporary', reason: 'temp' },
  crash: { failure: 'crashed', reason: 'crash' },
}
