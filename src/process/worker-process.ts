/**
 * Child processes of the programs: their start, and the control channel with its format, its pings
 * and its bounds.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { type Server, Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { runtimeOptions } from '../base/inspector.ts'
import { descriptorOf } from '../base/node-internals.ts'
import { isStoppedProcess, Pings } from '../base/supervised-child.ts'
import { setCloseOnExec } from '../libc/descriptors.ts'
import { forbidDumps, scheduleAsBatch, trimHeap } from '../libc/this-process.ts'
import { LineSplitter } from '../wire/lines.ts'
import { formatMessage, MAX_MESSAGE, PING, PONG, parseMessage } from '../wire/workers/control-channel.ts'

/** Unsent characters above which the channel is closed, because the other end does not read. */
const MAX_UNSENT = 16_777_216

/** Time for a worker to end after its control channel is closed. */
const CHANNEL_GRACE_MS = 5_000

/**
 * Descriptor of the control channel in the worker, and of the first listening socket handed to it.
 */
export const CONTROL_DESCRIPTOR = 3
export const FIRST_LISTENING_DESCRIPTOR = 4

/** One end of the channel between a privileged parent and its worker: JSON, one message a line. */
export type ControlChannel = {
  send(message: unknown): void
  /** Characters that the kernel has not accepted. */
  readonly unsent: number
  /** Adds a listener for messages, which are not checked, and their lengths in characters. */
  onMessage(listener: (message: unknown, length: number) => void): void
  /** The other end has closed the channel, sent an invalid message, or stopped reading. */
  onClose(listener: () => void): void
  close(): void
}

export type WorkerProcess = {
  readonly child: ChildProcess
  readonly channel: ControlChannel
  /** Fulfilled when the process has ended. The channel is closed then. */
  readonly ended: Promise<WorkerEnding>
}

export type WorkerEnding = {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
  /** It did not answer pings, and was killed for that. */
  readonly hung: boolean
  /** It could not be started. */
  readonly error?: Error
}

/** The end of a worker as fields of a log line. */
export const endingFields = ({ code, signal, hung, error }: WorkerEnding) => ({
  status: code ?? undefined,
  signal: signal ?? undefined,
  reason: hung ? 'no answer to pings' : error,
})

/** The cause of the end of a worker, for a message. */
export const describeEnding = ({ code, signal, hung, error }: WorkerEnding): string =>
  hung ? 'no answer to pings' : (error?.message ?? (signal === null ? `status ${code}` : `signal ${signal}`))

/**
 * Starts a program as a worker: listening sockets of the parent become its descriptors 4, 5, …, and
 * the control channel its descriptor 3. A number is the descriptor of a BoundSocket.
 *
 * The worker loads its code, drops its privileges, and then reads its first octet from the network.
 * So its account need not be able to read the program's files. `openSslConfiguration` is a file,
 * see config(5ssl). A worker that is stopped or does not answer pings is killed within 15 s. One
 * that does not load is killed within 32 s, because a busy host loads slowly. A worker that does
 * not end within 5 s after either side has closed the channel is killed, because it is beyond
 * control. One that cannot be started ends at once, with the error in `ended`.
 */
export function startWorker(
  script: string,
  args: readonly string[],
  listeners: readonly (Server | number)[],
  openSslConfiguration?: string,
): WorkerProcess {
  const child = spawn(
    process.execPath,
    [...runtimeOptions(), ...openSslOptions(openSslConfiguration), script, ...args],
    {
      stdio: [
        'ignore',
        'inherit',
        'inherit',
        'pipe',
        ...listeners.map(listener => (typeof listener === 'number' ? listener : descriptorOf(listener))),
      ],
      env: workerEnvironment(),
    },
  )
  const { channel, watchLoading, isHung } = watchedChannel(controlOf(child), child, () => child.kill('SIGKILL'))
  watchLoading()
  let hasEnded = false
  let grace: NodeJS.Timeout | undefined
  channel.onClose(() => {
    if (!hasEnded) grace = setTimeout(() => child.kill('SIGKILL'), CHANNEL_GRACE_MS)
  })
  const ended = new Promise<WorkerEnding>(resolve => {
    const end = (code: number | null, signal: NodeJS.Signals | null, error?: Error): void => {
      hasEnded = true
      clearTimeout(grace)
      channel.close()
      resolve({ code, signal, hung: isHung(), ...(error === undefined ? {} : { error }) })
    }
    child.once('exit', (code, signal) => end(code, signal))
    child.once('error', error => end(null, null, error))
  })
  return { child, channel, ended }
}

/**
 * The parent's end of the control channel. If no descriptor is free, the runtime makes no streams
 * and emits `error` later. The channel is then closed from the beginning.
 */
export function controlOf({ stdio }: { readonly stdio?: readonly unknown[] }): Duplex {
  const control = stdio?.[CONTROL_DESCRIPTOR]
  return control instanceof Socket ? control : new Socket().destroy()
}

/** The administrator's configuration of OpenSSL has precedence. */
const openSslOptions = (file: string | undefined): readonly string[] =>
  file === undefined || process.env['OPENSSL_CONF'] !== undefined ? [] : [`--openssl-config=${file}`]

/**
 * The worker's end of the channel. The channel closes when the parent ends. From now on the worker
 * leaves no core file, because the channel carries secrets. `batch`: the worker does not preempt
 * running processes when it wakes (decision 10).
 */
export function channelToParent({ batch = false }: { readonly batch?: boolean } = {}): ControlChannel {
  forbidDumps()
  if (batch) scheduleAsBatch()
  return answeringChannel()
}

/** The channel over descriptor 3, on which pings are answered. */
function answeringChannel(): ControlChannel {
  setCloseOnExec(CONTROL_DESCRIPTOR, true)
  const stream = new Socket({ fd: CONTROL_DESCRIPTOR, readable: true, writable: true })
  const channel = controlChannel(stream, word => {
    if (word === PING) channel.send(PONG)
  })
  channel.send(PONG)
  return channel
}

/**
 * Answers the pings of this daemon's supervisor and passes the supervisor's messages on. Without
 * AUTHRELAY_PINGED=1 and a channel in descriptor 3 it does nothing.
 */
export function answerPings(onMessage: (message: unknown) => void): void {
  if (isPinged()) answeringChannel().onMessage(onMessage)
}

/** `auth-relay up` has the other end of the control channel. */
export const isPinged = (): boolean => process.env['AUTHRELAY_PINGED'] === '1'

/**
 * Keeps children of this process from inheriting the supervisor's channel. Call it before the
 * first child starts.
 */
export function keepPingsToOurselves(): void {
  if (isPinged()) setCloseOnExec(CONTROL_DESCRIPTOR, true)
}

type WatchedChannel = {
  readonly channel: ControlChannel
  /** From now on the other end must send its first message in time, see Pings. */
  readonly watchLoading: () => void
  readonly isHung: () => boolean
}

/**
 * The parent's end of a channel to a child that was just launched. It pings the child and calls
 * `hung` once if the child does not answer or is stopped.
 */
export function watchedChannel(stream: Duplex, { pid }: ChildProcess, hung: () => void): WatchedChannel {
  let isHung = false
  const pings = new Pings(
    () => channel.send(PING),
    () => {
      isHung = true
      hung()
    },
    () => isStoppedProcess(pid),
  )
  const channel = controlChannel(stream, () => pings.alive())
  channel.onMessage(() => pings.alive())
  channel.onClose(() => pings.end())
  return { channel, watchLoading: () => pings.watchLoading(), isHung: () => isHung }
}

/**
 * Path of another auth-relay program beside the running one: built (`dist/pop3d.js`) or as source
 * (`src/pop3d/main.ts`).
 */
export function programBeside(name: string, running = process.argv[1] ?? ''): string {
  const source = /^(.*)\/[^/]+\/main\.ts$/.exec(running)?.[1]
  return source !== undefined ? `${source}/${name}/main.ts` : running.replace(/[^/]+$/, `${name}.js`)
}

/** Makes a channel over a stream. `onPing` is called for each PING and PONG. */
function controlChannel(stream: Duplex, onPing: (word: typeof PING | typeof PONG) => void): ControlChannel {
  const lines = new LineSplitter(MAX_MESSAGE)
  let closed = false
  let unsent = ''
  const messageListeners: ((message: unknown, length: number) => void)[] = []
  const closeListeners: (() => void)[] = []
  const flush = (): void => {
    if (!closed && unsent !== '') stream.write(unsent)
    unsent = ''
  }
  const close = (): void => {
    if (closed) return
    flush()
    closed = true
    stream.destroy()
    for (const listener of closeListeners) listener()
  }
  stream.on('data', (octets: Buffer) => {
    const whole = lines.push(octets)
    for (const line of whole.lines) {
      if (closed) return
      const message = parseMessage(line)
      if (message === undefined) return close()
      if (message === PING || message === PONG) {
        onPing(message)
        continue
      }
      for (const listener of messageListeners) listener(message, line.length)
    }
    if (whole.overlong > 0 || lines.isOverlong) close()
  })
  stream.on('end', close).on('error', close).on('close', close)
  return {
    get unsent() {
      return unsent.length + stream.writableLength
    },
    send: message => {
      if (closed) return
      // Messages of one event loop turn go out together.
      if (unsent === '') setImmediate(flush)
      unsent += formatMessage(message)
      if (unsent.length + stream.writableLength > MAX_UNSENT) close()
    },
    onMessage: listener => messageListeners.push(listener),
    onClose: listener => closeListeners.push(listener),
    close,
  }
}

/** The environment of a worker: without secrets, and without the variables of a supervisor. */
function workerEnvironment(): NodeJS.ProcessEnv {
  const { DBPASS, WRAP_DBPASS, STATUS_DBPASS, NOTIFY_SOCKET, WATCHDOG_USEC, WATCHDOG_PID, ...some } = process.env
  const { AUTHRELAY_SUPERVISED, AUTHRELAY_PINGED, LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES, ...forWorker } = some
  return forWorker
}

const TRIM_EVERY_MS = 10_000

/**
 * Gives free memory back to the system every 10 s, for a process that does TLS. The buffers of many
 * handshakes lie between those of open sessions, so the C library would keep them. They are a
 * quarter of the memory of an idle session. Call it before privileges are dropped. The function
 * does nothing if the C library cannot trim its heap.
 */
export function returnFreeMemory(trim: () => boolean = trimHeap): void {
  try {
    trim()
  } catch {
    return // musl, or no native module
  }
  setInterval(trim, TRIM_EVERY_MS).unref()
}
