/** Texts of files that come with the supervisor's order to reload, by path. */
import type { ReloadOrder } from '../wire/workers/supervised-program.ts'

let inForce: ReadonlyMap<string, string> = new Map()

/**
 * The text that the supervisor sent for this path with the reload that is under way; undefined:
 * read the file.
 */
export const handedText = (path: string): string | undefined => inForce.get(path)

/**
 * Runs a reload that finds these texts in place of the files. They are forgotten afterwards. One
 * reload runs at a time.
 */
export async function withInheritedFiles<T>(files: ReloadOrder['files'], run: () => Promise<T>): Promise<T> {
  inForce = new Map(Object.entries(files))
  try {
    return await run()
  } finally {
    inForce = new Map()
  }
}
