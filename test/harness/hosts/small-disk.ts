import { spawnSync } from 'node:child_process'
import { mkdirSync, rmSync, statfsSync, writeFileSync } from 'node:fs'
import { temporaryDirectory } from '../temporary-directory.ts'

function command(...words: readonly string[]): void {
  const [file = '', ...args] = words
  const { status, stderr } = spawnSync(file, args, { encoding: 'utf8' })
  if (status !== 0) throw new Error(`${words.join(' ')}: ${stderr}`)
}

/** A separate file system in memory (tmpfs), with a size in megabytes. Needs root. */
export class SmallDisk {
  readonly path: string
  readonly #directory = temporaryDirectory()

  constructor(megabytes: number) {
    this.path = `${this.#directory.path}/disk`
    mkdirSync(this.path)
    command('mount', '-t', 'tmpfs', '-o', `size=${megabytes}m,mode=0755`, 'tmpfs', this.path)
  }

  /** Fills the file system completely. */
  fill(): void {
    const { bavail, bsize } = statfsSync(this.path)
    const block = Buffer.alloc(bsize)
    for (let left = bavail; left > 0; left--) {
      try {
        writeFileSync(`${this.path}/filler`, block, { flag: 'a' })
      } catch {
        return // another process used the last block
      }
    }
  }

  /** Frees the space again. */
  empty(): void {
    rmSync(`${this.path}/filler`, { force: true })
  }

  remove(): void {
    command('umount', '-l', this.path)
    this.#directory.remove()
  }
}
