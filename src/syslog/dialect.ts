/** The interface of a dialect: the grammar of the login lines of one daemon. */
import type { LoginMethod } from '../wire/login-event.ts'

/** The fields that a dialect reads from one message. */
export type DialectFields =
  | {
      readonly kind: 'login'
      /** Text of the address field. The recognizer parses it. */
      readonly address: string
      readonly login: string
      readonly imap?: boolean
      readonly tls?: boolean
      readonly method?: LoginMethod
      /** The daemon has marked the login as the beginning of a longer name. */
      readonly cut?: boolean
    }
  /** First line of a two-line daemon: a session of this process began. `address` may be a name. */
  | { readonly kind: 'session'; readonly address: string }
  /** Second line of a two-line daemon: the session of this process logged in. */
  | { readonly kind: 'success'; readonly login: string; readonly imap?: boolean; readonly method?: LoginMethod }
  /** The session of this process has failed, so its address must be dropped. */
  | { readonly kind: 'failure' }

/**
 * The login lines of one kind of daemon.
 *
 * Every pattern for a login, a session or a success is anchored at both ends. The success word is
 * at a fixed place, and the address comes from its own field. No pattern searches in a line,
 * because a client can choose parts of most lines (spec/syslog.md §5).
 */
export type Dialect = {
  readonly name: string
  /** The setting that switches the dialect on. */
  readonly setting: `check_daemon_${string}`
  /** Exact tags. */
  readonly tags: readonly string[]
  /** One sentence for the settings file: the recognised lines. */
  readonly doc: string
  /**
   * Octets of the longest login that the daemon writes whole, or that `read` accepts. A login of
   * this length is refused, because it may be the beginning of a longer one that is blocked.
   */
  readonly longestLogin: number
  /**
   * Returns the fields of a message; undefined if it is not certainly a login line. `message`: the
   * text after `TAG[PID]: `, without control characters. `tag` is one of `tags` or of the setting
   * authd.daemon_tags.
   */
  readonly read: (message: string, tag: string) => DialectFields | undefined
}
