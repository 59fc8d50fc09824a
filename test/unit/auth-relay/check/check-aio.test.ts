import { writeFileSync } from 'node:fs'
import { afterAll, expect, test } from 'vitest'
import { checkAsyncIo } from '../../../../src/auth-relay/check/check-host.ts'
import { temporaryDirectory } from '../../../harness/temporary-directory.ts'

const directory = temporaryDirectory()
afterAll(() => directory.remove())

const check = (used: number, most: number) => {
  writeFileSync(`${directory.path}/aio-nr`, `${used}\n`)
  writeFileSync(`${directory.path}/aio-max-nr`, `${most}\n`)
  return checkAsyncIo(directory.path)
}

test('check warns before the asynchronous I/O of the host is used up', () => {
  expect(check(640, 65_536)).toMatchObject([{ verdict: 'fine', about: 'fs.aio-max-nr' }])
  expect(check(60_000, 65_536)).toMatchObject([
    {
      verdict: 'advice',
      text: expect.stringMatching(/^60000 of 65536 /),
      remedy: expect.stringContaining('fs.aio-max-nr=131072'),
    },
  ])
})

test('a host without the counters has no finding', () => {
  expect(checkAsyncIo(`${directory.path}/none`)).toEqual([])
})
