/** Announces changes of the grants to other programs, and listens to them. */
import type { Database } from '../database/database.ts'
import { listenTo, type Notifications } from '../database/notifications.ts'
import { ignored, type Statement } from '../database/statement.ts'

const CHANNEL = 'grants_changed'
const NOTIFY: Statement<unknown> = { name: 'notify-change', row: ignored, text: `SELECT pg_notify('${CHANNEL}', '')` }

/**
 * Least pause between two notifications of one writer, in milliseconds: a busy site must not spend
 * on them what its logins need.
 */
const PAUSE_MS = 100

/**
 * Announces a change of the grants to the cdb exports, so that they need not wait for their next
 * read. This happens after the commit and outside of it, because a NOTIFY inside would make every
 * commit wait for the previous one. Failures are ignored.
 */
export class ChangeNotifier {
  readonly #database: Pick<Database, 'query'>
  #timer: NodeJS.Timeout | undefined
  #again = false

  constructor(database: Pick<Database, 'query'>) {
    this.#database = database
  }

  /** The first change is announced at once, later ones together. */
  changed(): void {
    if (this.#timer !== undefined) {
      this.#again = true
      return
    }
    this.#timer = setTimeout(() => {
      this.#timer = undefined
      if (!this.#again) return
      this.#again = false
      this.changed()
    }, PAUSE_MS).unref()
    void notifyChange(this.#database)
  }
}

/** Announces the change at once; never rejects. */
export async function notifyChange(database: Pick<Database, 'query'>): Promise<void> {
  await database.query(NOTIFY).catch(() => undefined)
}

/**
 * Calls `changed` soon after an address was granted, or after an allowance or block changed;
 * listenTo describes the limits.
 */
export const listenForChanges = (access: Parameters<typeof listenTo>[0], changed: () => void): Notifications =>
  listenTo(access, CHANNEL, changed)
