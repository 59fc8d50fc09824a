import { packageDeb } from '../../scripts/package-deb.ts'
import { temporaryDirectory } from '../harness/temporary-directory.ts'

declare module 'vitest' {
  interface ProvidedContext {
    /** Path of the Debian package that every test installs. */
    readonly debianPackage: string
  }
}

/** Fast compression for tests; releases use xz. */
export const COMPRESSION = ['-Zzstd', '-z1']
export const VERSION = '1.0.0~test1-1'

/** Before all tests: builds the Debian package once. */
export default async function buildPackage(project: {
  provide(key: 'debianPackage', path: string): void
}): Promise<() => void> {
  const directory = temporaryDirectory()
  project.provide(
    'debianPackage',
    await packageDeb({ directory: directory.path, compression: COMPRESSION, version: VERSION }),
  )
  return directory.remove
}
