import { chownSync, mkdirSync, utimesSync, writeFileSync } from 'node:fs'

/** The account of all mail of a bench. */
export const OWNER = { uid: 65_534, gid: 65_534 }
/**
 * crypt(3), DES, of `secret`: the cheapest hash, the same for all, so that the hash is not
 * measured.
 */
export const HASH = 'abNANd1rDfiNc'

const LINE = `${'x'.repeat(69)}\n`
/** The body of a message of 4 KB, and of one of 5 MB. */
export const SMALL = LINE.repeat(58)
export const LARGE = LINE.repeat(75_000)

const MBOX_FROM = 'From ann@example.org Thu Mar  5 10:00:00 2026\n'

/** The whole message of that number; `body` comes behind its header. */
export const contentOf = (number: number, body: string): string => `Subject: ${number}\n\n${body}`

/**
 * Writes maildrops below a directory that other accounts may enter. Names and messages are always
 * the same.
 */
export class Maildrops {
  /** A folder with the same messages in mbox form, one file a user. */
  readonly mailboxes: string
  readonly #directory: string
  #seed = 1

  constructor(directory: string) {
    this.#directory = directory
    this.mailboxes = `${directory}/mailboxes`
    mkdirSync(this.mailboxes)
  }

  maildirOf = (user: string): string => `${this.#directory}/mail/${user}`

  /**
   * Names in the form of qmail, with parts that differ as on a real host. If names only count up,
   * Dovecot's table of names collides and costs ten times as much. The names have no sizes, because
   * Dovecot then keeps the sizes in its cache and is faster.
   */
  make(user: string, messages: number, body: string): void {
    const home = this.maildirOf(user)
    for (const folder of ['', '/new', '/cur', '/tmp']) {
      mkdirSync(`${home}${folder}`, { recursive: true })
      chownSync(`${home}${folder}`, OWNER.uid, OWNER.gid)
    }
    for (let number = 0; number < messages; number += 1) {
      const unique = `M${this.#next(1_000_000)}P${this.#next(32_768)}`
      const path = `${home}/cur/${1_700_000_000 + number}.${unique}.mail.example.org:2,S`
      writeFileSync(path, contentOf(number, body))
      chownSync(path, OWNER.uid, OWNER.gid)
      utimesSync(path, 1_700_000_000 + number, 1_700_000_000 + number)
    }
    for (const folder of ['new', 'cur']) utimesSync(`${home}/${folder}`, 1_700_000_000, 1_700_000_000)
    const mbox = Array.from({ length: messages }, (_, number) => `${MBOX_FROM}${contentOf(number, body)}\n`)
    writeFileSync(`${this.mailboxes}/${user}`, mbox.join(''), { mode: 0o600 })
    chownSync(`${this.mailboxes}/${user}`, OWNER.uid, OWNER.gid)
  }

  /** Pseudorandom numbers below `limit`, the same in each run, for names of files. */
  #next(limit: number): number {
    this.#seed = (Math.imul(this.#seed, 1_103_515_245) + 12_345) & 0x7fffffff
    return (this.#seed >>> 8) % limit
  }
}
