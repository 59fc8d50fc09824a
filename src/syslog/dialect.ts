import type { LoginMethod } from '../wire/login-event.ts'

/** The fields that a dialect reads from one message. `undefined`: not certainly a login. */
export type Heard =
  | {
      readonly kind: 'login'
      /** Text of the address field: the recognizer parses it strictly. */
      readonly address: string
      readonly login: string
      readonly imap?: boolean
      readonly tls?: boolean
      readonly method?: LoginMethod
      /** The daemon marked the login as cut: it is the beginning of a longer name. */
      readonly cut?: boolean
    }
  /**
   * First line of a two-line daemon: a session of this process began from this address, numeric or
   * not.
   */
  | { readonly kind: 'session'; readonly address: string }
  /** Second line of a two-line daemon: the session of this process logged in. */
  | { readonly kind: 'success'; readonly login: string; readonly imap?: boolean; readonly method?: LoginMethod }
  /** The session of this process failed: its data must be dropped. */
  | { readonly kind: 'failure' }

/**
 * The login lines of one kind of daemon. `read` gets the text after `TAG[PID]: ` of a line with a
 * tag of the list, free of control characters. Every pattern is anchored at both ends, the success
 * word is at its fixed place, and the address comes from its fixed field. There is never a search
 * (spec/syslog.md §5).
 */
export type Dialect = {
  readonly name: string
  /** The setting that switches it on. */
  readonly setting: `check_daemon_${string}`
  /** Exact tags. */
  readonly tags: readonly string[]
  /** One sentence for the settings file: the recognised lines. */
  readonly doc: string
  /**
   * Octets of the longest login that the daemon writes whole, or that `read` takes. A login of that
   * length may be the beginning of a longer one, which cannot be compared with the blocked logins:
   * it is refused.
   */
  readonly longestLogin: number
  readonly read: (message: string, tag: string) => Heard | undefined
}
