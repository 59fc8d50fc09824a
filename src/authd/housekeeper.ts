/**
 * The periodic work of authd: sweeps, history partitions, saved positions. It has no influence on
 * decisions about relaying.
 */
import { asError } from '../base/errors.ts'
import type { Log } from '../base/log.ts'
import type { GrantWriter } from '../grants/grant-store.ts'
import type { Counters } from './counters.ts'
import type { FilePlaces, LastLinesFile } from './file-places.ts'

export type HousekeeperOptions = {
  readonly store: Pick<GrantWriter, 'publishUngrantable' | 'sweep' | 'keepHistory'>
  readonly places: FilePlaces
  readonly lastLines: Pick<LastLinesFile, 'save'>
  readonly counters: Counters
  readonly log: Log
  /** Milliseconds between two sweeps. */
  readonly sweepEvery: number
  /** Days of history that are kept. */
  readonly keepDays: number
}

const DAY_MS = 86_400_000
const SAVE_PLACES_MS = 1000
/** Milliseconds after which a sweep or a new partition is cancelled. The next sweep tries again. */
const DEADLINE_MS = 30_000

/** Does the periodic work until `close`. */
export class Housekeeper {
  readonly #options: HousekeeperOptions
  readonly #timers: readonly NodeJS.Timeout[]
  #sweeping = false
  #historyDue = true
  #placesUnsaved = false

  constructor(options: HousekeeperOptions) {
    this.#options = options
    this.#timers = [
      setInterval(() => void this.sweep(), options.sweepEvery),
      setInterval(() => this.savePlaces(), SAVE_PLACES_MS),
      setInterval(() => {
        this.#historyDue = true
      }, DAY_MS),
    ]
    void this.sweep()
  }

  close(): void {
    for (const timer of this.#timers) clearInterval(timer)
    this.savePlaces()
  }

  /**
   * Removes ended grants, publishes ungrantable addresses and, once a day, creates history
   * partitions for the coming days. Never rejects: the next sweep tries again.
   */
  async sweep(): Promise<void> {
    if (this.#sweeping) return
    this.#sweeping = true
    const { store, counters, log, keepDays } = this.#options
    try {
      if (this.#historyDue) {
        await store.keepHistory(keepDays, { signal: AbortSignal.timeout(DEADLINE_MS) })
        this.#historyDue = false
      }
      const { grants } = await store.sweep({ signal: AbortSignal.timeout(DEADLINE_MS) })
      counters.sweeps += 1
      counters.swept += grants
      if (grants > 0) log.info('grants_swept', { grants })
      await store.publishUngrantable({ signal: AbortSignal.timeout(DEADLINE_MS) })
    } catch (error) {
      counters.sweepFailures += 1
      log.warn('sweep_failed', { reason: asError(error) })
    } finally {
      this.#sweeping = false
    }
  }

  /** A disk that stays full gives one log line, not one each second. */
  savePlaces(): void {
    const { places, lastLines, log } = this.#options
    try {
      places.save()
      lastLines.save()
      this.#placesUnsaved = false
    } catch (error) {
      if (this.#placesUnsaved) return
      this.#placesUnsaved = true
      log.error('state_save_failed', { reason: asError(error) })
    }
  }
}
