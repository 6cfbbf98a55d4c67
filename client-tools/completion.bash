# Completion of lockfs(1) for bash.
# shellcheck shell=bash

_lockfs()
{
    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]} words i
    COMPREPLY=()
    if ((COMP_CWORD == 1)); then
        words='run status token check release create set --help --version'
        mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
        return
    fi
    # Behind `--` begins another command.
    if [[ ${COMP_WORDS[1]} == run ]]; then
        for ((i = 2; i < COMP_CWORD; i++)); do
            if [[ ${COMP_WORDS[i]} == -- ]]; then
                if ((COMP_CWORD == i + 1)); then
                    mapfile -t COMPREPLY < <(compgen -c -- "$current")
                else
                    mapfile -t COMPREPLY < <(compgen -f -- "$current")
                fi
                return
            fi
        done
    fi
    # The shell takes `=` for a word of its own.
    if [[ ${COMP_WORDS[1]} == set ]] && { [[ $current == = ]] || [[ $previous == = ]]; }; then
        [[ $current != = ]] || i=1
        case ${COMP_WORDS[COMP_CWORD - 2 + ${i:-0}]} in
        release) words='close exit' ;;
        limit) words='1 unlimited' ;;
        *) return ;;
        esac
        mapfile -t COMPREPLY < <(compgen -W "$words" -- "${current#=}")
        return
    fi
    case ${COMP_WORDS[1]} in
    run) words='--try --timeout --shared --name --help' ;;
    status) words='--json --help' ;;
    release) words='--force --token --help' ;;
    create) words='--limit --ttl --release --delay --mode --help' ;;
    set)
        words='--help'
        if ((COMP_CWORD > 2)); then
            words='limit= ttl= release= delay='
            compopt -o nospace 2>/dev/null
        fi
        ;;
    *) words='--help' ;;
    esac
    case $previous in
    --release) words='close exit' ;;
    --limit) words='1 unlimited' ;;
    --timeout | --ttl | --delay | --mode | --token | --name) return ;;
    *)
        if [[ $current != -* && ${COMP_WORDS[1]} != set || $COMP_CWORD -eq 2 && $current != -* ]]; then
            compopt -o filenames 2>/dev/null
            mapfile -t COMPREPLY < <(compgen -f -- "$current")
            return
        fi
        ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
}

complete -F _lockfs lockfs
