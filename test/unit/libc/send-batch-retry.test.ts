import { constants } from 'node:os'
import { afterEach, expect, test, vi } from 'vitest'
import type { ArgumentsOf } from '../../../src/libc/native-function.ts'
import { openSocketPair } from '../../../src/libc/sockets.ts'
import { OwnedDescriptor } from '../../../src/sockets/owned-descriptor.ts'

/** The kernel's answers to io_setup, in order; it grants the queue when there are no more. */
const kernel = vi.hoisted(() => ({ refusals: [] as number[], setups: 0, errno: 0 }))

vi.mock(import('../../../src/libc/native-function.ts'), async original => {
  const real = await original()
  return {
    ...real,
    nativeFunction: <const Prototype extends string>(prototype: Prototype) => {
      const call = real.nativeFunction(prototype)
      return (...args: ArgumentsOf<Prototype>): number => {
        if (!prototype.includes('unsigned int most')) return call(...args)
        kernel.setups += 1
        kernel.errno = kernel.refusals.shift() ?? 0
        return kernel.errno === 0 ? call(...args) : -1
      }
    },
    lastErrno: () => {
      const { errno } = kernel
      kernel.errno = 0
      return errno === 0 ? real.lastErrno() : errno
    },
  }
})

const { SendBatch } = await import('../../../src/libc/send-batch.ts')

const opened: OwnedDescriptor[] = []
afterEach(() => {
  for (const each of opened.splice(0)) each.close()
  kernel.refusals = []
  kernel.setups = 0
})

/** Sends batches of messages that are large enough for a queue. */
function sender() {
  const [near, far] = openSocketPair().map(descriptor => new OwnedDescriptor(descriptor))
  if (near === undefined || far === undefined) throw new Error('a pair has two ends')
  opened.push(near, far)
  const batch = new SendBatch()
  const reasons: string[] = []
  batch.onLack(lack => reasons.push(String(lack)))
  const send = (batches: number): void => {
    for (let count = 0; count < batches; count += 1) {
      for (let message = 0; message < 8; message += 1) batch.add(far.descriptor, '', undefined, () => {})
      batch.send()
    }
  }
  return { send, reasons }
}

test('a host without a free context is asked again after 1,000 batches, and reported once', () => {
  const { EAGAIN, ENOMEM } = constants.errno
  kernel.refusals = [EAGAIN, ENOMEM]
  const { send, reasons } = sender()
  send(1_000)
  expect(kernel.setups).toBe(1)
  send(1_000)
  expect(kernel.setups).toBe(2)
  send(2_000)
  expect(kernel.setups).toBe(3)
  expect(reasons).toEqual([expect.stringContaining('io_setup: EAGAIN')])
})

test('a kernel that lacks or forbids the call is not asked again', () => {
  for (const name of ['EINVAL', 'ENOSYS', 'EOPNOTSUPP', 'EPERM'] as const) {
    kernel.setups = 0
    kernel.refusals = [constants.errno[name]]
    const { send, reasons } = sender()
    send(2_500)
    expect(kernel.setups).toBe(1)
    expect(reasons).toEqual([expect.stringContaining('io_setup: ')])
  }
})
