import { lstatSync } from 'node:fs'

const LOOK_EVERY_MS = 1000

/**
 * Looks once a second whether a Unix socket of ours is still where clients look for it: a clean-up of /run may have
 * removed it, and the server itself would never notice. `gone` resolves, once, with the reason.
 */
export function watchSocketFile(path: string): { readonly gone: Promise<string>; stop(): void } {
  const inode = lstatSync(path).ino
  const { promise: gone, resolve } = Promise.withResolvers<string>()
  const timer = setInterval(() => {
    if (lstatSync(path, { throwIfNoEntry: false })?.ino === inode) return
    clearInterval(timer)
    resolve(`${path} was removed or replaced: nobody could connect any more`)
  }, LOOK_EVERY_MS).unref()
  return { gone, stop: () => clearInterval(timer) }
}
