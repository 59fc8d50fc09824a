/**
 * Texts of files, by path, that the supervisor sends with its order to reload. A program that has
 * dropped root reloads with them, because it cannot read the files.
 */
import type { ReloadOrder } from '../wire/workers/supervised-program.ts'

let inForce: ReadonlyMap<string, string> = new Map()

/**
 * The text that the supervisor sent for this path with the current reload. Undefined: the caller
 * reads the file.
 */
export const handedText = (path: string): string | undefined => inForce.get(path)

/**
 * Runs a reload in which `handedText` returns these texts. Run one reload at a time, because the
 * texts are global until it ends.
 */
export async function withInheritedFiles<T>(files: ReloadOrder['files'], run: () => Promise<T>): Promise<T> {
  inForce = new Map(Object.entries(files))
  try {
    return await run()
  } finally {
    inForce = new Map()
  }
}
