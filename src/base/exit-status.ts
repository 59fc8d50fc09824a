/** Exit statuses of every program; scripts rely on them (docs/ARCHITECTURE.md). */
export const EXIT = { done: 0, no: 1, usage: 100, temporary: 111 } as const

/** Wrong usage or settings: repeating the command as it stands cannot help. Each fault is one line with its remedy. */
export class UsageFault extends Error {
  override readonly name = 'UsageFault'
  readonly exitStatus = EXIT.usage
  readonly faults: readonly string[]

  constructor(faults: string | readonly string[], cause?: unknown) {
    const list = typeof faults === 'string' ? [faults] : faults
    super(list.join('\n'), { cause })
    this.faults = list
  }
}

/** The world is not ready (port in use, database away): trying again later may help. The message says what to do. */
export class TemporaryFault extends Error {
  override readonly name = 'TemporaryFault'
  readonly exitStatus = EXIT.temporary

  constructor(message: string, cause?: unknown) {
    super(message, { cause })
  }
}
