import { closeSync, openSync } from 'node:fs'
import { errorCodeOf } from '../../../src/base/errors.ts'
import { openFilesLimit, setOpenFilesLimit } from '../../../src/libc/this-process.ts'

/** Above the descriptors of an ordinary test process. */
const LIMIT = 512n

/**
 * Lets this process open only `free` more descriptors: every further one fails with EMFILE. Returns
 * the function that ends this.
 */
export function takeDescriptors(free: number): () => void {
  const { soft } = openFilesLimit()
  setOpenFilesLimit(LIMIT)
  const opened = openAll()
  for (const descriptor of opened.splice(opened.length - free)) closeSync(descriptor)
  return () => {
    setOpenFilesLimit(soft)
    for (const descriptor of opened) closeSync(descriptor)
  }
}

/** Runs synchronous work while only `free` more descriptors can be opened. */
export function withFreeDescriptors<Result>(free: number, work: () => Result): Result {
  const giveBack = takeDescriptors(free)
  try {
    return work()
  } finally {
    giveBack()
  }
}

function openAll(): number[] {
  const opened: number[] = []
  for (;;) {
    try {
      opened.push(openSync('/dev/null', 'r'))
    } catch (error) {
      if (errorCodeOf(error) !== 'EMFILE') throw error
      return opened
    }
  }
}
