import { spawnSync } from 'node:child_process'
import { mkdirSync, rmSync, statfsSync, writeFileSync } from 'node:fs'
import { temporaryDirectory } from './temporary-directory.ts'

function command(...words: readonly string[]): void {
  const [file = '', ...args] = words
  const { status, stderr } = spawnSync(file, args, { encoding: 'utf8' })
  if (status !== 0) throw new Error(`${words.join(' ')}: ${stderr}`)
}

/** A file system of its own in memory (tmpfs), with a size in megabytes. Needs root. */
export class SmallDisk {
  readonly path: string
  readonly #directory = temporaryDirectory()

  constructor(megabytes: number) {
    this.path = `${this.#directory.path}/disk`
    mkdirSync(this.path)
    command('mount', '-t', 'tmpfs', '-o', `size=${megabytes}m,mode=0755`, 'tmpfs', this.path)
  }

  /** Takes every free octet. */
  fill(): void {
    const { bavail, bsize } = statfsSync(this.path)
    const block = Buffer.alloc(bsize)
    for (let left = bavail; left > 0; left--) {
      try {
        writeFileSync(`${this.path}/filler`, block, { flag: 'a' })
      } catch {
        return // another process took the last block
      }
    }
  }

  /** Gives them back. */
  empty(): void {
    rmSync(`${this.path}/filler`, { force: true })
  }

  remove(): void {
    command('umount', '-l', this.path)
    this.#directory.remove()
  }
}
