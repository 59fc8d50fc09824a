import { mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { afterAll, beforeEach, describe, expect, test } from 'vitest'
import { isReadable, replaceFile } from '../../../src/base/files.ts'
import { temporaryDirectory } from '../../harness/temporary-directory.ts'

const temporary = temporaryDirectory()
afterAll(() => temporary.remove())

let directory = ''
let runs = 0
beforeEach(() => {
  directory = `${temporary.path}/${runs++}`
  mkdirSync(directory)
})

describe('a file that is replaced', () => {
  test('has the new content and the mode, also if it did not exist', () => {
    const path = `${directory}/file`
    replaceFile(path, 'first', 0o600)
    expect([readFileSync(path, 'utf8'), statSync(path).mode & 0o777]).toEqual(['first', 0o600])
    replaceFile(path, Buffer.from([0, 255]), 0o644)
    expect([[...readFileSync(path)], statSync(path).mode & 0o777]).toEqual([[0, 255], 0o644])
    expect(readdirSync(directory)).toEqual(['file'])
  })

  test('is another file than before, so that a reader of the old one sees no mixture', () => {
    const path = `${directory}/file`
    writeFileSync(path, 'old')
    const before = statSync(path).ino
    replaceFile(path, 'new', 0o600)
    expect(statSync(path).ino).not.toBe(before)
  })

  test('leaves no temporary file after a failure', () => {
    const path = `${directory}/directory`
    mkdirSync(`${path}/full`, { recursive: true })
    expect(() => replaceFile(path, 'text', 0o600)).toThrow(/EISDIR|ENOTEMPTY|EEXIST/)
    expect(readdirSync(directory)).toEqual(['directory'])
  })

  test('stays if its temporary file cannot be written', () => {
    const path = `${directory}/file`
    writeFileSync(path, 'old')
    mkdirSync(`${path}.tmp.${process.pid}`)
    expect(() => replaceFile(path, 'new', 0o600)).toThrow('EISDIR')
    expect(readFileSync(path, 'utf8')).toBe('old')
  })
})

test('a missing file is not readable', () => {
  writeFileSync(`${directory}/file`, '')
  expect([isReadable(`${directory}/file`), isReadable(`${directory}/missing`)]).toEqual([true, false])
})
