/**
 * The pop3d workers of popup: one process for each owner, its socket, its tickets, and its restart.
 */

import { randomBytes } from 'node:crypto'
import { chmodSync, mkdirSync } from 'node:fs'
import { BoundedMap } from '../../base/bounded-map.ts'
import type { Clock } from '../../base/clock.ts'
import { KeyedHash } from '../../base/keyed-hash.ts'
import type { Log } from '../../base/log.ts'
import { SupervisedChild } from '../../base/supervised-child.ts'
import { type BoundSocket, holdListener } from '../../process/listener.ts'
import { type Ids, isRoot } from '../../process/privileges.ts'
import { endingFields, startWorker, type WorkerEnding, type WorkerProcess } from '../../process/worker-process.ts'
import {
  formatSessionTicket,
  type MaildropWorkerChange,
  type MaildropWorkerReport,
  type MaildropWorkerSettings,
  type MaildropWorkerStart,
  parseMaildropWorkerReport,
  type SessionTicket,
  type UsedTicket,
} from '../../wire/workers/maildrop-worker.ts'
import type { OwnedMaildir } from '../checkers/checker.ts'

/** Time within which a ticket must be presented. */
export const TICKET_LIFE_MS = 30_000
/** Idle time after which an owner's listening socket is closed. */
const FORGET_OWNER_MS = 10 * 60_000
/** Logins of one owner whose sessions the worker reports; above it the oldest is dropped. */
const MAX_COUNTED = 10_000

export type MaildropWorkersOptions = {
  readonly runDir: string
  /** Path of the pop3d program. */
  readonly program: string
  /**
   * The account of the login processes, the only one that may connect; undefined where all is one
   * user.
   */
  readonly loginIds: Ids | undefined
  readonly logLevel: MaildropWorkerStart['logLevel']
  readonly engine: MaildropWorkerStart['engine']
  readonly settings: MaildropWorkerSettings
}

type Owner = {
  readonly uid: number
  readonly gid: number
  key: Buffer
  /** Signs tickets with that key. */
  mac: KeyedHash
  readonly listener: BoundSocket
  /** The used tickets of the last worker that exited cleanly. */
  usedTickets: readonly UsedTicket[]
  /** The logins by session id, for the reports of this owner's worker. */
  readonly logins: BoundedMap<string, OwnersLogin>
  readonly name: string
  /** Time until which a client may still present a ticket. */
  ticketsUntil: number
  readonly child: SupervisedChild<WorkerProcess>
  forget: NodeJS.Timeout | undefined
}

/** Gets the reports about the session of a login, for LOGIN-DELAY. */
export type CountedLogin = {
  /** The session begins: the interval counts from now. */
  sessionBegan(): void
  /** The login got no session: the next login need not wait. */
  sessionRefused(): void
}

type OwnersLogin = { readonly counted: CountedLogin; hasSession: boolean }

/**
 * Data with which the login process opens a maildrop: the socket's name in the workers' directory,
 * and the first line.
 */
export type MaildropTicket = { readonly socket: string; readonly ticket: string }

/**
 * The pop3d processes, one per owner: a uid with its gid. The monitor keeps each owner's listening
 * socket open. So a client that arrives while the process exits waits in the kernel's queue for the
 * next one.
 *
 * After a clean exit the key stays the same. After a crash the used tickets are unknown, so the key
 * and every ticket are void.
 */
export class MaildropWorkers {
  /** Directory of the sockets. */
  readonly directory: string
  readonly #options: MaildropWorkersOptions
  readonly #log: Log
  readonly #clock: Clock
  readonly #owners = new Map<string, Promise<Owner>>()
  #settings: MaildropWorkerSettings
  #stopping = false

  constructor(options: MaildropWorkersOptions, log: Log, clock: Clock) {
    this.directory = `${options.runDir}/pop3d`
    this.#options = options
    this.#settings = options.settings
    this.#log = log
    this.#clock = clock
    // A login process changes into this directory before it drops root, and cannot list it later.
    // The sockets belong to its account.
    mkdirSync(this.directory, { recursive: true, mode: 0o711 })
    chmodSync(this.directory, 0o711)
  }

  /** The reason why a session may not run as that user; undefined if it may. */
  refusalOf({ uid, gid }: OwnedMaildir): string | undefined {
    if (uid === 0) return 'uid 0 never gets a session'
    if (gid === 0) return 'gid 0 never gets a session'
    if (!isRoot() && uid !== process.getuid?.()) return `mail of uid ${uid} needs a popup that is started as root`
    return undefined
  }

  /**
   * Makes sure that the owner's process runs and accepts this maildrop. `counted` gets the reports
   * of the process about the session.
   */
  async open(
    { uid, gid, maildir }: OwnedMaildir,
    session: Omit<SessionTicket, 'maildir' | 'expires'>,
    counted: CountedLogin,
  ): Promise<MaildropTicket> {
    const owner = await this.#ownerOf(uid, gid).catch((error: unknown) => {
      counted.sessionRefused()
      throw error
    })
    if (this.#settings.capabilities.loginDelay > 0) owner.logins.renew(session.id, { counted, hasSession: false })
    const now = this.#clock()
    owner.ticketsUntil = now + TICKET_LIFE_MS
    if (!this.#stopping) {
      clearTimeout(owner.forget)
      owner.child.start()
    }
    const expires = Math.ceil((now + TICKET_LIFE_MS) / 1000)
    return {
      socket: owner.name,
      ticket: formatSessionTicket({ ...session, maildir, expires }, text => owner.mac.hex(text)),
    }
  }

  /** Applies other settings to later sessions, also in running processes. */
  async use(settings: MaildropWorkerSettings): Promise<void> {
    this.#settings = settings
    for (const { child } of await this.#madeOwners()) {
      child.run?.channel.send({ type: 'settings', settings } satisfies MaildropWorkerChange)
    }
  }

  /** Ends every process. */
  async stop(): Promise<void> {
    this.#stopping = true
    const owners = await this.#madeOwners()
    for (const owner of owners) {
      clearTimeout(owner.forget)
      owner.listener.release()
    }
    await Promise.all(owners.map(owner => owner.child.stop({ after: 0, act: ({ channel }) => channel.close() })))
  }

  /** The owners, without those whose socket cannot be opened: their logins fail alone. */
  async #madeOwners(): Promise<readonly Owner[]> {
    const owners = await Promise.allSettled(this.#owners.values())
    return owners.flatMap(owner => (owner.status === 'fulfilled' ? [owner.value] : []))
  }

  #ownerOf(uid: number, gid: number): Promise<Owner> {
    const name = ownerName(uid, gid)
    const known = this.#owners.get(name)
    if (known !== undefined) return known
    const made = this.#makeOwner(uid, gid)
    this.#owners.set(name, made)
    made.catch(() => this.#owners.delete(name))
    return made
  }

  async #makeOwner(uid: number, gid: number): Promise<Owner> {
    const name = `${ownerName(uid, gid)}.sock`
    const owner: Owner = {
      uid,
      gid,
      ...newKey(),
      listener: await holdListener({ kind: 'unix', path: `${this.directory}/${name}` }, 'run_dir', {
        mode: 0o600,
        ...this.#options.loginIds,
      }),
      usedTickets: [],
      logins: new BoundedMap<string, OwnersLogin>(MAX_COUNTED),
      name,
      ticketsUntil: 0,
      child: new SupervisedChild<WorkerProcess>({
        launch: () => this.#launch(owner),
        ended: ending => this.#ended(owner, ending),
        clock: this.#clock,
      }),
      forget: undefined,
    }
    return owner
  }

  #launch(owner: Owner): WorkerProcess {
    const { uid, gid } = owner
    const worker = startWorker(this.#options.program, ['--worker'], [owner.listener.descriptor])
    this.#log.info('worker_started', { uid, pid: worker.child.pid })
    const start: MaildropWorkerStart = {
      type: 'start',
      ids: isRoot() ? { uid, gid } : null,
      key: owner.key.toString('hex'),
      loginUid: this.#options.loginIds?.uid ?? null,
      usedTickets: [...owner.usedTickets],
      logLevel: this.#options.logLevel,
      engine: this.#options.engine,
      settings: this.#settings,
    }
    owner.usedTickets = []
    worker.channel.onMessage(message => {
      const report = parseMaildropWorkerReport(message)
      if (report !== undefined) this.#receive(owner, report)
    })
    worker.channel.send(start)
    return worker
  }

  #receive(owner: Owner, report: MaildropWorkerReport): void {
    switch (report.type) {
      case 'usedTickets':
        owner.usedTickets = report.tickets
        return
      case 'sessionBegun': {
        const login = owner.logins.get(report.id)
        if (login === undefined || login.hasSession) return
        login.hasSession = true
        login.counted.sessionBegan()
        return
      }
      case 'sessionRefused':
        owner.logins.get(report.id)?.counted.sessionRefused()
        owner.logins.delete(report.id)
        return
      case 'ready':
        return
    }
  }

  #ended(owner: Owner, ending: WorkerEnding): void {
    if (this.#stopping) return
    const { uid } = owner
    const inOrder = ending.code === 0
    if (inOrder) this.#log.info('worker_stopped', { uid })
    else {
      Object.assign(owner, newKey())
      // The old tickets are void, so the logins that wait get no session.
      for (const { counted, hasSession } of owner.logins.values()) if (!hasSession) counted.sessionRefused()
      owner.logins.clear()
      this.#log.error('worker_ended', { uid, ...endingFields(ending) })
    }
    // A client with a ticket may be waiting in the queue.
    if (owner.ticketsUntil > this.#clock()) owner.child.restart({ inOrder })
    else owner.forget = setTimeout(() => this.#forgetOwner(owner), FORGET_OWNER_MS)
  }

  #forgetOwner(owner: Owner): void {
    if (owner.child.run !== undefined || owner.ticketsUntil > this.#clock()) return
    this.#owners.delete(ownerName(owner.uid, owner.gid))
    owner.listener.release()
  }
}

/** Two accounts of one uid may have different groups, so each has its own process. */
const ownerName = (uid: number, gid: number): string => `${uid}-${gid}`

function newKey(): Pick<Owner, 'key' | 'mac'> {
  const key = randomBytes(32)
  return { key, mac: new KeyedHash(key) }
}
