import type { Database } from '../database/database.ts'
import { listenTo, type Notifications } from '../database/notifications.ts'
import { ignored, type Statement } from '../database/statement.ts'

const CHANNEL = 'grants_changed'
const NOTIFY: Statement<unknown> = { name: 'notify-change', row: ignored, text: `SELECT pg_notify('${CHANNEL}', '')` }

/**
 * Least pause between two notifications of one writer, in milliseconds: a busy site must not spend
 * on them what its logins need.
 */
const PAUSE = 100

/**
 * Tells those who keep a list of the grants that it has changed, so that they need not wait for
 * their next look. After the
 * commit and beside it: a NOTIFY inside would make every commit wait for the one before. Failures
 * are nobody's business.
 */
export class ChangeNotifier {
  readonly #database: Pick<Database, 'query'>
  #timer: NodeJS.Timeout | undefined
  #again = false

  constructor(database: Pick<Database, 'query'>) {
    this.#database = database
  }

  /** The first change is told at once, those that follow closely together. */
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
    }, PAUSE).unref()
    void notifyChange(this.#database)
  }
}

/** Tells it at once; never rejects. */
export async function notifyChange(database: Pick<Database, 'query'>): Promise<void> {
  await database.query(NOTIFY).catch(() => undefined)
}

/**
 * Calls `heard` soon after an address was granted anew, or an allowance or block changed; see
 * listenTo for what it is worth.
 */
export const listenForChanges = (access: Parameters<typeof listenTo>[0], heard: () => void): Notifications =>
  listenTo(access, CHANNEL, heard)
