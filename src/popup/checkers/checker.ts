/** Request and answer of every kind of checker. */
import type { IpAddress } from '../../wire/ip-address.ts'
import type { LoginMethod, LoginOctets } from '../../wire/login-event.ts'
import type { Applicant } from './check-queue.ts'

/** A login to check. Name and secret hold one character per octet, as sent. */
export type CheckRequest = {
  readonly login: LoginOctets
  /** The password; for APOP the digest. */
  readonly secret: string
  readonly method: LoginMethod
  /** The greeting's msg-id with its brackets, which APOP digests. */
  readonly timestamp: string
  readonly ip: IpAddress
  readonly tls: boolean
  readonly remotePort?: number | undefined
  readonly localIp?: IpAddress | undefined
  readonly localPort?: number | undefined
  readonly proxyIp?: IpAddress | undefined
  /** The applicant for which slow work waits in a CheckQueue. */
  readonly applicant: Applicant
}

/** The owner of a maildrop and its path. `maildir` is an absolute path. */
export type OwnedMaildir = { readonly uid: number; readonly gid: number; readonly maildir: string }

/** Only `no` counts as a failure of the client. `detail` is for the log and contains no secret. */
export type CheckResult =
  | { readonly kind: 'yes'; readonly maildrop: OwnedMaildir }
  | { readonly kind: 'no' | 'temporary' | 'crash' | 'tooLong'; readonly detail: string }

/**
 * Decides whether a secret is right. Slow work runs outside of the event loop, and waits in a
 * CheckQueue.
 */
export type Checker = {
  /**
   * Never rejects for input of a client; a rejection counts as temporary, as does CheckQueueFull.
   */
  check(request: CheckRequest): Promise<CheckResult>
  close(): Promise<void> | void
}

/**
 * A wrong name and a wrong password give the client the same answer; the log may distinguish them.
 */
export const no = (detail: string): CheckResult => ({ kind: 'no', detail })
export const temporary = (detail: string): CheckResult => ({ kind: 'temporary', detail })

/**
 * The absolute path of a maildir: as named, below the home if relative, or the default below the
 * home if none is named. Understands Dovecot's `maildir:~/Mail:INDEX=…`. Undefined if no absolute
 * path comes of it.
 */
export function maildirPath(named: string, home: string, fallback: string): string | undefined {
  const plain = named.startsWith('maildir:') ? (named.slice('maildir:'.length).split(':')[0] ?? '') : named
  const chosen = plain === '' ? fallback : plain.replace(/^~(?=\/|$)/, home)
  if (chosen.includes('\0')) return undefined
  if (chosen.startsWith('/')) return chosen
  // Without a home a relative name would be relative to the root directory.
  return home.startsWith('/') ? `${home.replace(/\/+$/, '')}/${chosen}` : undefined
}

type Used = { readonly checker: Checker; readonly running: Set<Promise<CheckResult>> }

/**
 * A checker that another one can replace while checks run. The old one is closed after its last
 * check.
 */
export class ReplaceableChecker implements Checker {
  #used: Used

  constructor(checker: Checker) {
    this.#used = { checker, running: new Set() }
  }

  check(request: CheckRequest): Promise<CheckResult> {
    const { checker, running } = this.#used
    const verdict = checker.check(request).finally(() => running.delete(verdict))
    running.add(verdict)
    return verdict
  }

  /** Puts another checker in force for checks from now on. Fulfilled when the old one is closed. */
  async use(checker: Checker): Promise<void> {
    const old = this.#used
    this.#used = { checker, running: new Set() }
    await Promise.allSettled(old.running)
    await old.checker.close()
  }

  close(): Promise<void> | void {
    return this.#used.checker.close()
  }
}
