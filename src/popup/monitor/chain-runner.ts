/** Runs chained programs for logins (checker = "chain"). */
import { connect } from 'node:net'
import { messageOf } from '../../base/errors.ts'
import { descriptorOf } from '../../base/node-internals.ts'
import { signalGroup } from '../../base/supervised-child.ts'
import { setBlocking } from '../../libc/descriptors.ts'
import type { BoundSocket } from '../../process/listener.ts'
import { formatSocketAddress } from '../../process/socket-address.ts'
import { refusalOf, startChain } from '../../ucspi/checkpassword.ts'
import type { Environment } from '../../ucspi/environment.ts'
import { formatChainLine, type VerifyRequest } from '../../wire/workers/login-process.ts'
import type { Applicant, CheckQueue } from '../checkers/check-queue.ts'
import { checkerEnvironment } from '../checkers/checkpassword.ts'

export type ChainRunnerOptions = {
  readonly checker: readonly string[]
  readonly program: readonly string[]
  readonly environment: Environment
  /** Time limit of the program for +OK, in milliseconds. */
  readonly checkTimeout: number
  /** For each login process the socket where it waits for connections of chained programs. */
  readonly listeners: readonly BoundSocket[]
  /** Limits the number of programs that have not sent +OK yet. */
  readonly programs: CheckQueue
}

/** The meaning of a chained program's end for the login, if no session resulted. */
export type ChainEnd = { readonly kind: 'badauth' | 'temporary' | 'crash' | 'tooLong'; readonly detail: string }

export type RunningChain = {
  /** The first +OK was read: the time limit ends. */
  accepted(): void
  /** Ends the program, because the login is refused for another reason. */
  stop(): void
  readonly ended: Promise<ChainEnd>
}

/**
 * Runs `checkpassword PROG…` for a login. The session's descriptor is a Unix connection from the
 * monitor to the login process, from which the monitor never reads. Its first line names the
 * request; all later octets are the program's.
 */
export class ChainRunner {
  #options: ChainRunnerOptions

  constructor(options: ChainRunnerOptions) {
    this.#options = options
  }

  /** Puts other options in force for logins from now on. */
  use(options: Omit<ChainRunnerOptions, 'listeners'>): void {
    this.#options = { ...this.#options, ...options }
  }

  /** Rejects as CheckQueue does if the applicant's check never runs. */
  async start(loginProcess: number, request: VerifyRequest, applicant: Applicant): Promise<RunningChain | ChainEnd> {
    const leave = await this.#options.programs.enter(applicant)
    try {
      const chain = await this.#start(loginProcess, request)
      if ('kind' in chain) {
        leave()
        return chain
      }
      void chain.ended.then(leave, leave)
      const accepted = (): void => {
        leave()
        chain.accepted()
      }
      return { ...chain, accepted }
    } catch (error) {
      leave()
      throw error
    }
  }

  async #start(loginProcess: number, request: VerifyRequest): Promise<RunningChain | ChainEnd> {
    const { checker, program, environment, checkTimeout, listeners } = this.#options
    const address = listeners[loginProcess]?.address
    if (address?.kind !== 'unix') throw new Error(`no chain socket: ${address && formatSocketAddress(address)}`)
    const session = connect({ path: address.path })
    // Paused before it is connected, so that the runtime never reads octets that belong to the
    // program.
    session.pause()
    await new Promise<void>((resolve, reject) => {
      session.on('error', reject)
      session.write(formatChainLine(request.n), () => resolve())
    })
    try {
      const descriptor = descriptorOf(session)
      setBlocking(descriptor, true)
      const chain = startChain({
        checker,
        program,
        credentials: { login: request.login, password: request.secret, timestamp: request.timestamp },
        environment: checkerEnvironment(environment, request),
        session: descriptor,
        limitMs: checkTimeout,
      })
      if ('kind' in chain) return { ...chain, kind: 'tooLong' }
      return {
        accepted: chain.accepted,
        stop: () => signalGroup(chain.pid, 'SIGTERM'),
        ended: chain.ended.then(({ ending, timedOut }) =>
          timedOut ? { kind: 'temporary', detail: 'the program did not answer in time' } : refusalOf(checker, ending),
        ),
      }
    } catch (error) {
      return { kind: 'temporary', detail: messageOf(error) }
    } finally {
      session.destroy()
    }
  }
}
